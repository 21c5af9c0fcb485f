//! `multiply` on the CPU, by chunks of elements.

use crate::cpu::CpuRun;
use crate::cpu::isa::dispatch;

/// Elements of one chunk.
const CHUNK: usize = 16 * 1024;

pub(super) fn forward(run: &CpuRun<'_>) {
    let live = run.live_input(0).min(run.live_input(1));
    let live = live * run.input_spec(0).elements_per_row();
    let (a, b) = (run.input::<f32>(0), run.input::<f32>(1));
    let (device, accumulate) = (run.device(), run.accumulate(0));
    device.pool.map_chunks(&mut run.output::<f32>(0)[..live], CHUNK, |chunk, out| {
        let part = chunk * CHUNK..chunk * CHUNK + out.len();
        product(device.isa, &a[part.clone()], &b[part], out, accumulate);
    });
}

dispatch! {
    fn product(a: &[f32], b: &[f32], out: &mut [f32], accumulate: bool) {
        let terms = out.iter_mut().zip(a.iter().zip(b));
        if accumulate {
            terms.for_each(|(o, (a, b))| *o += a * b);
        } else {
            terms.for_each(|(o, (a, b))| *o = a * b);
        }
    }
}
