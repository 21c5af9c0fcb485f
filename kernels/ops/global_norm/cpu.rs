//! The block sums of `global_norm` on the CPU, a block at a time.

use crate::cpu::CpuDevice;
use crate::cpu::vector;

/// Writes the sum of squares of each block of `block_elements` gradients (the last may be shorter).
///
/// Panics if `out` does not have one element per block.
pub fn block_sums(device: &CpuDevice, gradient: &[f32], block_elements: usize, out: &mut [f64]) {
    assert_eq!(out.len(), gradient.len().div_ceil(block_elements), "one sum per block");
    device.pool.map_chunks(out, 1, |block, out| {
        let from = block * block_elements;
        let part = &gradient[from..gradient.len().min(from + block_elements)];
        out[0] = vector::sum_of_squares_f64(device.isa, part);
    });
}
