//! `scale` on the CPU, by chunks of elements.

use crate::cpu::CpuRun;
use crate::cpu::isa::dispatch;
use crate::ops::scale::Scale;

/// Elements of one chunk.
const CHUNK: usize = 16 * 1024;

pub(super) fn forward(run: &CpuRun<'_>, op: &Scale) {
    let live = run.live_input(0) * run.input_spec(0).elements_per_row();
    let (x, device, accumulate) = (run.input::<f32>(0), run.device(), run.accumulate(0));
    device.pool.map_chunks(&mut run.output::<f32>(0)[..live], CHUNK, |chunk, out| {
        scaled(device.isa, &x[chunk * CHUNK..][..out.len()], op.0, out, accumulate);
    });
}

dispatch! {
    fn scaled(x: &[f32], factor: f32, out: &mut [f32], accumulate: bool) {
        if accumulate {
            out.iter_mut().zip(x).for_each(|(o, x)| *o += x * factor);
        } else {
            out.iter_mut().zip(x).for_each(|(o, x)| *o = x * factor);
        }
    }
}
