//! `fold` on the CPU, by chunks of elements.

use crate::cpu::CpuDevice;
use crate::cpu::vector;

/// Elements of one chunk.
const CHUNK: usize = 32 * 1024;

/// Adds `from` to `into`, element by element. Panics if the lengths differ.
pub fn add_into(device: &CpuDevice, into: &mut [f32], from: &[f32]) {
    assert_eq!(into.len(), from.len(), "a sum of slices of different lengths");
    device.pool.map_chunks(into, CHUNK, |chunk, into| {
        vector::add_scaled(device.isa, into, 1.0, &from[chunk * CHUNK..][..into.len()]);
    });
}
