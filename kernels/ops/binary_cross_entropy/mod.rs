//! `binary_cross_entropy`: a yes-or-no loss on logits.
//! `logits f[N], labels i32[N], scale f32[] -> loss f32[], loss_sum f32[], targets i32[]`.
//!
//! A label is 1, 0, or negative: then the element is ignored and its logit not read. The term is
//! max(x, 0) - x·label + log(1 + e^-|x|); `loss_sum` adds the terms in f64 in order, `loss` is
//! `scale` times it, `targets` counts the terms. Gradient: `scale · (sigmoid(x) - label)`, 0 where
//! ignored; overwrites or accumulates. Elements beyond the live extent are neither read nor
//! written.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::gradient_op::GradientOp;
use crate::ops::loss::{apply_loss, expect_scalar, loss_specs};
use crate::ops::shapes::{Shapes, expect_float, expect_i32, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// The loss.
#[derive(Debug)]
pub struct BinaryCrossEntropy;

/// Its gradient: `logits f[N], labels i32[N], scale f32[], dloss f32[] -> f[N]`.
const GRADIENT: GradientOp = GradientOp {
    outputs: |(), of| vec![of[0].clone().with_live(of[0].live.or(of[1].live))],
    flops: |(), io| 20.0 * io.inputs[0].elements() as f64,
    cuda: |(), io| cuda::gradient(io),
    ..GradientOp::new("binary_cross_entropy_gradient", (), |run, ()| cpu::gradient(run))
};

/// Loss, its unscaled sum, and the number of labels that are not ignored. Nothing flows back
/// through the sum or to the scale.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless logits are `f[N]`, labels `i32[N]` and the scale one
/// `f32`.
pub fn binary_cross_entropy(
    g: &mut Graph<'_>,
    logits: Tensor,
    labels: Tensor,
    scale: Tensor,
) -> Result<(Tensor, Tensor, Tensor)> {
    let outputs = apply_loss(g, BinaryCrossEntropy, &[logits, labels, scale])?;
    Ok((outputs[0], outputs[1], outputs[2]))
}

fn check(logits: &Spec, labels: &Spec, scale: &Spec) -> std::result::Result<(), String> {
    expect_float(logits, &[logits.leading()], "logits")?;
    expect_i32(labels, &[logits.leading()], "labels")?;
    expect_scalar(scale, "the scale")
}

impl Op for BinaryCrossEntropy {
    fn name(&self) -> &'static str {
        "binary_cross_entropy"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [logits, labels, scale] = operands(inputs)?;
        check(logits, labels, scale)?;
        let [loss, sum] = loss_specs();
        Ok(vec![loss, sum, Spec::scalar(DType::I32)])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let Some(dloss) = backward.gradient(0) else { return Ok(()) };
        let inputs = [backward.input(0)?, backward.input(1)?, backward.input(2)?, dloss];
        backward.give(0, GRADIENT, &inputs)
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 20.0 * io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run);
        Ok(())
    }
}
