//! `add` on the CPU, by chunks of elements; with a norm of the sum, by rows.

use crate::cpu::CpuRun;
use crate::cpu::isa::dispatch;
use crate::cpu::rows::map_rows;
use crate::cpu::widen::round_trip;
use crate::ops::add::fused::{AddLayerNorm, AddRmsNorm};
use crate::ops::layer_norm;
use crate::ops::rms_norm;

/// Elements of one chunk.
const CHUNK: usize = 16 * 1024;

pub(super) fn forward(run: &CpuRun<'_>) {
    let live = run.live_output(0) * run.output_spec(0).elements_per_row();
    let (a, b) = (run.input::<f32>(0), run.input::<f32>(1));
    let (device, accumulate) = (run.device(), run.accumulate(0));
    device.pool.map_chunks(&mut run.output::<f32>(0)[..live], CHUNK, |chunk, out| {
        let part = chunk * CHUNK..chunk * CHUNK + out.len();
        sum(device.isa, &a[part.clone()], &b[part], out, accumulate);
    });
}

pub(super) fn add_layer_norm(run: &CpuRun<'_>, op: &AddLayerNorm) {
    let (a, b) = (run.input::<f32>(0), run.input::<f32>(1));
    let (w, bias) = (run.input::<f32>(2), run.input::<f32>(3));
    let (d, device) = (w.len(), run.device());
    let outputs = [(run.output(0), d), (run.output(1), 1), (run.output(2), 1), (run.output(3), d)];
    let stored = run.output_spec(3).dtype;
    map_rows(&device.pool, run.live_output(3), d, outputs, |rows, [y, mean, rstd, s]| {
        let part = rows.start * d..rows.end * d;
        sum(device.isa, &a[part.clone()], &b[part], s, false);
        round_trip(device, stored, s);
        for (i, (s, y)) in s.chunks_exact(d).zip(y.chunks_exact_mut(d)).enumerate() {
            (mean[i], rstd[i]) = layer_norm::cpu::normalise(device.isa, s, w, bias, op.eps, y);
        }
    });
}

pub(super) fn add_rms_norm(run: &CpuRun<'_>, op: &AddRmsNorm) {
    let (a, b, w) = (run.input::<f32>(0), run.input::<f32>(1), run.input::<f32>(2));
    let (d, device) = (w.len(), run.device());
    let outputs = [(run.output(0), d), (run.output(1), 1), (run.output(2), d)];
    let stored = run.output_spec(2).dtype;
    map_rows(&device.pool, run.live_output(2), d, outputs, |rows, [y, rstd, s]| {
        let part = rows.start * d..rows.end * d;
        sum(device.isa, &a[part.clone()], &b[part], s, false);
        round_trip(device, stored, s);
        for (i, (s, y)) in s.chunks_exact(d).zip(y.chunks_exact_mut(d)).enumerate() {
            rstd[i] = rms_norm::cpu::normalise(device.isa, s, w, op.eps, y);
        }
    });
}

dispatch! {
    fn sum(a: &[f32], b: &[f32], out: &mut [f32], accumulate: bool) {
        let terms = out.iter_mut().zip(a.iter().zip(b));
        if accumulate {
            terms.for_each(|(o, (a, b))| *o += a + b);
        } else {
            terms.for_each(|(o, (a, b))| *o = a + b);
        }
    }
}
