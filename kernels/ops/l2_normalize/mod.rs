//! `l2_normalize`: rows of length 1. `x f[N, D] -> f[N, D]`, of x's dtype.
//!
//! `y = x / max(‖x‖, eps)`, the norm summed in f64. Gradient: `(dy - y (y · dy)) / ‖x‖`, or `dy /
//! eps` for a row shorter than eps; overwrites or accumulates. Rows beyond the live extent are
//! neither read nor written.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::gradient_op::GradientOp;
use crate::ops::shapes::{Shapes, matrix, operands};
use crate::ops::{Class, Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// Normalises rows. Its second output, `f32[N]`, holds their norms, at least eps.
#[derive(Debug)]
pub struct L2Normalize {
    /// The shortest row that becomes 1 long; above 0.
    pub eps: f32,
}

/// Every row of `x` divided by its length, or by `eps` if that is larger.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `x` is a float matrix and `eps` above 0.
pub fn l2_normalize(g: &mut Graph<'_>, x: Tensor, eps: f32) -> Result<Tensor> {
    Ok(g.apply(L2Normalize { eps }, &[x])?[0])
}

impl Op for L2Normalize {
    fn name(&self) -> &'static str {
        "l2_normalize"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x] = operands(inputs)?;
        let [rows, _] = matrix(x, "x")?;
        if self.eps.is_nan() || self.eps <= 0.0 {
            return Err(format!("eps is {}", self.eps));
        }
        Ok(vec![x.clone(), Spec::new(&[rows], DType::F32).with_live(x.live)])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let Some(dy) = backward.gradient(0) else { return Ok(()) };
        let inputs = [dy, backward.input(0)?, backward.output(1)?];
        let rule = GradientOp {
            outputs: |_, of| vec![of[1].clone()],
            flops: |_, io| 5.0 * io.inputs[0].elements() as f64,
            cuda: |&eps, io| cuda::gradient(io, eps),
            ..GradientOp::new("l2_normalize_gradient", self.eps, |run, &eps| {
                cpu::gradient(run, eps);
            })
        };
        backward.give(0, rule, &inputs)
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 3.0 * io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn class(&self) -> Class {
        Class::Norm
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io, self.eps)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run, self);
        Ok(())
    }
}
