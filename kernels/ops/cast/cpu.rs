//! `cast` on the CPU: operands stand widened, so that it is a copy; storing rounds.

use crate::cpu::CpuRun;
use crate::cpu::vector;

/// Elements of one chunk.
const CHUNK: usize = 16 * 1024;

pub(super) fn forward(run: &CpuRun<'_>) {
    let live = run.live_input(0) * run.input_spec(0).elements_per_row();
    let (x, accumulate, device) = (run.input::<f32>(0), run.accumulate(0), run.device());
    device.pool.map_chunks(&mut run.output::<f32>(0)[..live], CHUNK, |chunk, out| {
        let x = &x[chunk * CHUNK..][..out.len()];
        match accumulate {
            true => vector::add_scaled(device.isa, out, 1.0, x),
            false => out.copy_from_slice(x),
        }
    });
}
