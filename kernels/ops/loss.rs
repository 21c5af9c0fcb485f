//! What losses share: their outputs, and softmax over a row.
//!
//! A loss is a sum of terms in f64, in a fixed order; `loss = scale * sum` is what backward starts
//! from, `sum` and the count of targets are for reports, and nothing flows back through those.

use crate::cpu::CpuRun;
use crate::cpu::isa::{Isa, dispatch};
use crate::cpu::vector::{self, exp};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::Op;
use crate::ops::softmax::ln;
use crate::shape::Spec;

#[cfg(test)]
mod tests;

/// Lanes of [`exp_sum`].
const LANES: usize = 32;

/// Specs of `loss f32[]` and `loss_sum f32[]`.
pub(crate) fn loss_specs() -> [Spec; 2] {
    [Spec::scalar(DType::F32), Spec::scalar(DType::F32)]
}

/// Refuses what is not one `f32`.
pub(crate) fn expect_scalar(spec: &Spec, what: &str) -> std::result::Result<(), String> {
    if spec.elements() == 1 && spec.dtype == DType::F32 {
        return Ok(());
    }
    Err(format!("{what} is {spec}, not one f32"))
}

/// Adds a loss whose last input is its scale; nothing flows back to the scale or from the sum.
pub(crate) fn apply_loss(
    g: &mut Graph<'_>,
    op: impl Op + 'static,
    inputs: &[Tensor],
) -> Result<Vec<Tensor>> {
    let mut inputs = inputs.to_vec();
    if let Some(scale) = inputs.last_mut() {
        *scale = g.stop_gradient(*scale);
    }
    let mut outputs = g.apply(op, &inputs)?;
    outputs[1] = g.stop_gradient(outputs[1]);
    Ok(outputs)
}

/// Writes outputs 0 and 1: the scaled sum and the sum.
pub(crate) fn write_loss(run: &CpuRun<'_>, scale: f32, sum: f64) {
    run.output::<f32>(0)[0] = (f64::from(scale) * sum) as f32;
    run.output::<f32>(1)[0] = sum as f32;
}

/// The largest value of a row and the sum of e^((x - largest) rate); softmax of `x · rate` is their
/// quotient. `rate` is above 0.
pub(crate) fn softmax_parts(isa: Isa, x: &[f32], rate: f32) -> (f32, f32) {
    let largest = vector::max(isa, x);
    (largest, exp_sum(isa, x, largest, rate))
}

/// log(Σ e^(x · rate)) of a row.
pub(crate) fn log_sum_exp(isa: Isa, x: &[f32], rate: f32) -> f64 {
    let (largest, sum) = softmax_parts(isa, x, rate);
    f64::from(largest) * f64::from(rate) + ln(sum)
}

dispatch! {
    /// Σ e^((x - shift) rate): element i goes to lane i mod 32, lanes are joined in a fixed tree.
    pub(crate) fn exp_sum(x: &[f32], shift: f32, rate: f32) -> f32 {
        let mut lanes = [0.0f32; LANES];
        let (blocks, tail) = x.as_chunks::<LANES>();
        for block in blocks {
            for (lane, &x) in lanes.iter_mut().zip(block) {
                *lane += exp((x - shift) * rate);
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(tail) {
            *lane += exp((x - shift) * rate);
        }
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                lanes[lane] += lanes[lane + width];
            }
            width /= 2;
        }
        lanes[0]
    }

    /// out += factor · e^((x - shift) rate), by fma.
    pub(crate) fn add_exp(out: &mut [f32], x: &[f32], shift: f32, rate: f32, factor: f32) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = factor.mul_add(exp((x - shift) * rate), *out);
        }
    }
}
