//! Activation functions in f64.

use crate::ops::activation::Activation;

/// One element.
pub(super) fn value(kind: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match kind {
        Activation::Gelu => {
            let scale = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
            x * sigmoid(scale * (x + 0.044715 * x * x * x))
        }
        Activation::GeluErf => x * normal_cdf(x),
        Activation::Silu => x * sigmoid(x),
    }
}

/// Φ by Simpson's rule from the nearer side: 0.5 plus the integral from 0, or the tail to x - 10.
fn normal_cdf(x: f64) -> f64 {
    let (from, start) = if x < -1.0 { (x - 10.0, 0.0) } else { (0.0, 0.5) };
    let density = |t: f64| (-0.5 * t * t).exp() / std::f64::consts::TAU.sqrt();
    let steps = 4000;
    let h = (x - from) / f64::from(steps);
    let inner = |i: i32| {
        let weight = if i % 2 == 1 { 4.0 } else { 2.0 };
        weight * density(from + f64::from(i) * h)
    };
    let sum = density(from) + density(x) + (1..steps).map(inner).sum::<f64>();
    start + sum * h / 3.0
}
