//! `cross_entropy` on the CPU: rows in parallel, their terms added in order.

use crate::cpu::CpuRun;
use crate::cpu::rows::map_rows;
use crate::cpu::softmax::{add_exp, log_sum_exp, softmax_parts, write_loss};

pub(super) fn forward(run: &CpuRun<'_>) {
    let (logits, labels) = (run.input::<f32>(0), run.input::<i32>(1));
    let (columns, device) = (run.input_spec(0).columns(), run.device());
    let live = run.live_input(0).min(run.live_input(1));
    let terms = &mut run.workspace::<f64>()[..live];
    map_rows(&device.pool, live, columns, [(&mut *terms, 1)], |rows, [terms]| {
        for (row, term) in rows.zip(terms) {
            let x = &logits[row * columns..][..columns];
            *term = match usize::try_from(labels[row]) {
                Ok(label) => log_sum_exp(device.isa, x, 1.0) - f64::from(x[label]),
                Err(_) => 0.0,
            };
        }
    });
    write_loss(run, run.input::<f32>(2)[0], terms.iter().sum());
    let targets = labels[..live].iter().filter(|label| **label >= 0).count();
    run.output::<i32>(2)[0] = targets as i32;
}

pub(super) fn gradient(run: &CpuRun<'_>) {
    let (logits, labels) = (run.input::<f32>(0), run.input::<i32>(1));
    let factor = run.input::<f32>(2)[0] * run.input::<f32>(3)[0];
    let (columns, device) = (run.input_spec(0).columns(), run.device());
    let live = run.live_input(0).min(run.live_input(1));
    let (dx, accumulate) = (run.output::<f32>(0), run.accumulate(0));
    map_rows(&device.pool, live, columns, [(dx, columns)], |rows, [dx]| {
        for (row, dx) in rows.zip(dx.chunks_exact_mut(columns)) {
            if !accumulate {
                dx.fill(0.0);
            }
            let Ok(label) = usize::try_from(labels[row]) else { continue };
            let x = &logits[row * columns..][..columns];
            let (largest, sum) = softmax_parts(device.isa, x, 1.0);
            add_exp(device.isa, dx, x, largest, 1.0, factor / sum);
            dx[label] -= factor;
        }
    });
}
