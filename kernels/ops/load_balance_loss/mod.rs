//! `load_balance_loss`: pulls a router towards an even load.
//! `logits f[N, E], counts i32[E], scale f32[] -> loss f32[], loss_sum f32[]`.
//!
//! `loss_sum = E · Σ_n Σ_e f_e p_ne` with `p` the softmax of the logits and `f_e` the share of
//! expert e in `counts`: N times the loss of Fedus et al. ("Switch Transformers",
//! arXiv:2101.03961), which is N for an even load, so that the sums of micro-batches add up and
//! `scale` is coefficient / tokens. `counts` are those of the same micro-batch (from `route`) or of
//! an earlier step; if they are all 0 the loss is 0. Gradient of the logits, which overwrites or
//! accumulates: `scale · E · p_ne (f_e - Σ_i f_i p_ni)`. Rows beyond the live extent are neither
//! read nor written.

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::gradient_op::GradientOp;
use crate::ops::loss::{apply_loss, expect_scalar, loss_specs};
use crate::ops::shapes::{Shapes, expect_i32, matrix, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// Forward.
#[derive(Debug)]
pub struct LoadBalanceLoss;

/// Its gradient: `logits f[N, E], counts i32[E], scale f32[], dloss f32[] -> f[N, E]`.
const GRADIENT: GradientOp = GradientOp {
    flops: |(), io| 8.0 * io.inputs[0].elements() as f64,
    cuda: |(), io| cuda::gradient(io),
    ..GradientOp::new("load_balance_loss_gradient", (), |run, ()| cpu::gradient(run))
};

/// Loss and its unscaled sum. Nothing flows back through the sum or to the scale.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless the logits are `f[N, E]` with a count per expert, and the
/// scale one `f32`.
pub fn load_balance_loss(
    g: &mut Graph<'_>,
    logits: Tensor,
    counts: Tensor,
    scale: Tensor,
) -> Result<(Tensor, Tensor)> {
    let outputs = apply_loss(g, LoadBalanceLoss, &[logits, counts, scale])?;
    Ok((outputs[0], outputs[1]))
}

fn check(logits: &Spec, counts: &Spec, scale: &Spec) -> std::result::Result<(), String> {
    let [_, experts] = matrix(logits, "the router's logits")?;
    expect_i32(counts, &[experts], "the counts")?;
    expect_scalar(scale, "the scale")
}

impl Op for LoadBalanceLoss {
    fn name(&self) -> &'static str {
        "load_balance_loss"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [logits, counts, scale] = operands(inputs)?;
        check(logits, counts, scale)?;
        Ok(loss_specs().to_vec())
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let Some(dloss) = backward.gradient(0) else { return Ok(()) };
        let inputs = [backward.input(0)?, backward.input(1)?, backward.input(2)?, dloss];
        backward.give(0, GRADIENT, &inputs)
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 6.0 * io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run);
        Ok(())
    }
}
