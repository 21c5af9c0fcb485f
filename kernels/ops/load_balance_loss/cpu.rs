//! `load_balance_loss` on the CPU: rows in order, since there are few columns.

use crate::cpu::CpuRun;
use crate::cpu::rows::map_rows;
use crate::cpu::softmax::{softmax_parts, write_loss};
use crate::cpu::vector::exp;

pub(super) fn forward(run: &CpuRun<'_>) {
    let (logits, counts) = (run.input::<f32>(0), run.input::<i32>(1));
    let (experts, live, isa) = (counts.len(), run.live_input(0), run.device().isa);
    let factor = factor(counts);
    let mut sum = 0.0;
    for x in logits.chunks_exact(experts).take(live) {
        let (largest, total) = softmax_parts(isa, x, 1.0);
        sum += weighted(x, largest, counts) / f64::from(total) * factor;
    }
    write_loss(run, run.input::<f32>(2)[0], sum);
}

pub(super) fn gradient(run: &CpuRun<'_>) {
    let (logits, counts) = (run.input::<f32>(0), run.input::<i32>(1));
    let scale = f64::from(run.input::<f32>(2)[0] * run.input::<f32>(3)[0]);
    let (experts, live, device) = (counts.len(), run.live_input(0), run.device());
    let (factor, accumulate) = (factor(counts) * scale, run.accumulate(0));
    let dx = run.output::<f32>(0);
    map_rows(&device.pool, live, 4 * experts, [(dx, experts)], |rows, [dx]| {
        for (row, dx) in rows.zip(dx.chunks_exact_mut(experts)) {
            let x = &logits[row * experts..][..experts];
            let (largest, total) = softmax_parts(device.isa, x, 1.0);
            let mean = (weighted(x, largest, counts) / f64::from(total)) as f32;
            let factor = (factor / f64::from(total)) as f32;
            for (dx, (&x, &count)) in dx.iter_mut().zip(x.iter().zip(counts)) {
                let term = factor * exp(x - largest) * (count as f32 - mean);
                *dx = if accumulate { *dx + term } else { term };
            }
        }
    });
}

/// E / Σ counts, or 0.
fn factor(counts: &[i32]) -> f64 {
    let total: i64 = counts.iter().map(|&count| i64::from(count)).sum();
    if total == 0 { 0.0 } else { counts.len() as f64 / total as f64 }
}

/// Σ counts · e^(x - largest).
fn weighted(x: &[f32], largest: f32, counts: &[i32]) -> f64 {
    let terms = x.iter().zip(counts);
    terms.map(|(&x, &count)| f64::from(exp(x - largest)) * f64::from(count)).sum()
}
