//! The tangent on the CPU, by chunks of elements.

use crate::cpu::isa::dispatch;
use crate::cpu::{CpuRun, vector};

/// Elements of one chunk.
const CHUNK: usize = 16 * 1024;

pub(super) fn forward(run: &CpuRun<'_>) {
    let live = run.live_input(0) * run.input_spec(0).elements_per_row();
    let (x, y) = (run.input::<f32>(0), &mut run.output::<f32>(0)[..live]);
    let device = run.device();
    device.pool.map_chunks(y, CHUNK, |chunk, y| {
        value(device.isa, &x[chunk * CHUNK..][..y.len()], y);
    });
}

pub(super) fn gradient(run: &CpuRun<'_>) {
    let live = run.live_input(0) * run.input_spec(0).elements_per_row();
    let (dy, x) = (run.input::<f32>(0), run.input::<f32>(1));
    let (dx, device) = (&mut run.output::<f32>(0)[..live], run.device());
    device.pool.map_chunks(dx, CHUNK, |chunk, dx| {
        let part = chunk * CHUNK..chunk * CHUNK + dx.len();
        slope(device.isa, &dy[part.clone()], &x[part], dx);
    });
}

dispatch! {
    fn value(x: &[f32], y: &mut [f32]) {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = vector::tanh(x));
    }

    fn slope(dy: &[f32], x: &[f32], dx: &mut [f32]) {
        let terms = dx.iter_mut().zip(dy.iter().zip(x));
        terms.for_each(|(dx, (&dy, &x))| {
            let y = vector::tanh(x);
            *dx = dy * (-y).mul_add(y, 1.0);
        });
    }
}
