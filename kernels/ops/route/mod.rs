//! `route`: which experts take a token, and with what weight.
//! `logits f[N, E], bias f32[E]? -> expert i32[N, k], weight f32[N, k], counts i32[E]`.
//!
//! Scores are softmax or sigmoid of the logits. The k largest of score + bias are taken, in falling
//! order, the lower expert first among equals, what is no number last; without a bias logits are
//! compared instead, which is the same but exact. The bias only selects (Wang et al.,
//! "Auxiliary-loss-free load balancing", arXiv:2408.15664). A weight is the expert's score,
//! divided by the sum of the k scores + 1e-20 if normalised. `counts` says how often each expert
//! was taken in this micro-batch.
//!
//! Gradient of the logits through the weights alone; overwrites or accumulates. Nothing flows to
//! the bias. Limits: at most [`EXPERTS_MAX`] experts, k of them distinct. Rows beyond the live
//! extent are neither read, counted nor written.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::gradient_op::GradientOp;
use crate::ops::shapes::{Shapes, expect_float, matrix, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// Experts that one router can choose from.
pub const EXPERTS_MAX: usize = 1024;

/// What a router makes of its logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Score {
    /// Scores of a token sum to 1.
    Softmax,
    /// Each expert by itself.
    Sigmoid,
}

/// Chooses.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Experts per token.
    pub top_k: usize,
    /// What a logit becomes.
    pub score: Score,
    /// Whether the weights of a token sum to 1.
    pub normalize: bool,
}

/// The experts of each token, their weights, and the load of each expert.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless the logits are `f[N, E]`, the bias has an element per
/// expert, and there are `1..=E` experts per token.
pub fn route(
    g: &mut Graph<'_>,
    logits: Tensor,
    bias: Option<Tensor>,
    rule: Route,
) -> Result<(Tensor, Tensor, Tensor)> {
    let outputs = match bias {
        Some(bias) => {
            let bias = g.stop_gradient(bias);
            g.apply(rule, &[logits, bias])?
        }
        None => g.apply(rule, &[logits])?,
    };
    Ok((outputs[0], outputs[1], outputs[2]))
}

impl Op for Route {
    fn name(&self) -> &'static str {
        "route"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [logits] = operands(&inputs[..inputs.len().min(1)])?;
        let [rows, experts] = matrix(logits, "the router's logits")?;
        match inputs[1..] {
            [] => {}
            [bias] => expect_float(bias, &[experts], "the bias")?,
            _ => return Err(format!("{} operands, not 1 or 2", inputs.len())),
        }
        let k = self.top_k;
        if k == 0 || k > experts || experts > EXPERTS_MAX {
            return Err(format!("{k} of {experts} experts, of which there may be {EXPERTS_MAX}"));
        }
        let chosen = |dtype| Spec::new(&[rows, k], dtype).with_live(logits.live);
        Ok(vec![chosen(DType::I32), chosen(DType::F32), Spec::new(&[experts], DType::I32)])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let Some(dweight) = backward.gradient(1) else { return Ok(()) };
        let (logits, expert) = (backward.input(0)?, backward.output(0)?);
        // `logits f[N, E], expert i32[N, k], dweight f32[N, k] -> f[N, E]`.
        let rule = GradientOp {
            flops: |_, io| 6.0 * io.inputs[0].elements() as f64,
            cuda: |rule, io| cuda::gradient(io, rule),
            ..GradientOp::new("route_gradient", *self, cpu::gradient)
        };
        backward.give(0, rule, &[logits, expert, dweight])
    }

    fn cost(&self, io: &Io) -> Cost {
        let compared = io.inputs[0].elements() * (4 + self.top_k);
        Cost { flops: compared as f64, bytes: io.bytes() as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io, self)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run, self);
        Ok(())
    }
}
