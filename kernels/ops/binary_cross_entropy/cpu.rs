//! `binary_cross_entropy` on the CPU: one pass in order, terms in f64.

use crate::cpu::softmax::write_loss;
use crate::cpu::{CpuRun, vector};

pub(super) fn forward(run: &CpuRun<'_>) {
    let (logits, labels) = (run.input::<f32>(0), run.input::<i32>(1));
    let live = run.live_input(0).min(run.live_input(1));
    let (mut sum, mut targets) = (0.0, 0);
    for (&x, &label) in logits[..live].iter().zip(labels).filter(|(_, label)| **label >= 0) {
        let linear = f64::from(x.max(0.0)) - f64::from(x) * f64::from(label);
        sum += linear + ln_1p(f64::from(vector::exp(-x.abs())));
        targets += 1;
    }
    write_loss(run, run.input::<f32>(2)[0], sum);
    run.output::<i32>(2)[0] = targets;
}

pub(super) fn gradient(run: &CpuRun<'_>) {
    let (logits, labels) = (run.input::<f32>(0), run.input::<i32>(1));
    let factor = run.input::<f32>(2)[0] * run.input::<f32>(3)[0];
    let live = run.live_input(0).min(run.live_input(1));
    let accumulate = run.accumulate(0);
    let dx = &mut run.output::<f32>(0)[..live];
    for (dx, (&x, &label)) in dx.iter_mut().zip(logits.iter().zip(labels)) {
        let term = if label < 0 { 0.0 } else { factor * (vector::sigmoid(x) - label as f32) };
        *dx = if accumulate { *dx + term } else { term };
    }
}

/// log(1 + e) for e in 0..=1, as 2 artanh(z), z = e / (2 + e) <= 1/3, by its series; to 1e-13.
fn ln_1p(e: f64) -> f64 {
    const TERMS: u32 = 13;
    let z = e / (2.0 + e);
    let square = z * z;
    let coefficients = (0..TERMS).rev().map(|k| 1.0 / f64::from(2 * k + 1));
    let series = coefficients.fold(0.0, |sum, c| sum * square + c);
    2.0 * z * series
}
