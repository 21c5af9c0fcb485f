//! `cross_entropy`: softmax cross-entropy over rows of logits that are held in memory.
//! `logits f[N, V], labels i32[N], scale f32[] -> loss f32[], loss_sum f32[], targets i32[]`.
//!
//! A label is in 0..V (anything above ends the run), or negative: then the row is ignored and not
//! read. The term is log(Σ e^x) - x[label]; `loss_sum` adds the terms in f64 in row order, `loss`
//! is `scale` times it, `targets` counts the terms. Gradient: `scale · (softmax(x) - [v = label])`,
//! 0 in ignored rows; overwrites or accumulates. Rows beyond the live extent are neither read nor
//! written. For a large V behind a linear layer there is `linear_cross_entropy`.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::gradient_op::GradientOp;
use crate::ops::loss::{apply_loss, expect_scalar, gradient_of_rows, loss_specs, of_rows};
use crate::ops::shapes::{Shapes, expect_i32, matrix, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// The loss.
#[derive(Debug)]
pub struct CrossEntropy;

/// Its gradient: `logits f[N, V], labels i32[N], scale f32[], dloss f32[] -> f[N, V]`.
const GRADIENT: GradientOp = GradientOp {
    outputs: |(), of| vec![of[0].clone().with_live(of[0].live.or(of[1].live))],
    flops: |(), io| 6.0 * io.inputs[0].elements() as f64,
    cuda: |(), io| gradient_of_rows(io, "cross_entropy", &[]),
    ..GradientOp::new("cross_entropy_gradient", (), |run, ()| cpu::gradient(run))
};

/// Loss, its unscaled sum, and the number of labels that are not ignored. Nothing flows back
/// through the sum or to the scale.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless logits are `f[N, V]`, labels `i32[N]` and the scale one
/// `f32`.
pub fn cross_entropy(
    g: &mut Graph<'_>,
    logits: Tensor,
    labels: Tensor,
    scale: Tensor,
) -> Result<(Tensor, Tensor, Tensor)> {
    let outputs = apply_loss(g, CrossEntropy, &[logits, labels, scale])?;
    Ok((outputs[0], outputs[1], outputs[2]))
}

fn check(logits: &Spec, labels: &Spec, scale: &Spec) -> std::result::Result<(), String> {
    let [rows, _] = matrix(logits, "logits")?;
    expect_i32(labels, &[rows], "labels")?;
    expect_scalar(scale, "the scale")
}

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
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
        Cost { flops: 4.0 * io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn workspace(&self, io: &Io) -> usize {
        io.inputs[0].leading() * size_of::<f64>()
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        of_rows(io, "cross_entropy", &[])
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run);
        Ok(())
    }
}
