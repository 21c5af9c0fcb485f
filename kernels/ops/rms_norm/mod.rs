//! `rms_norm`: rows of root mean square 1, then a weight (Zhang and Sennrich, arXiv:1910.07467).
//! `x f[N, D], w f[D] -> y f[N, D]` (dtype of x), saved `rstd f32[N]`: `y = x * rstd * w`,
//! `rstd = 1 / sqrt(mean(x²) + eps)`, the mean over D.
//!
//! Gradients: `dx` overwrites or accumulates; `dw = Σ dy x rstd` over rows overwrites or
//! accumulates in `f32`, summed in fixed blocks. Dead rows are left untouched.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::fusible::Fusible;
use crate::ops::gradient_op::GradientOp;
use crate::ops::shapes::{Shapes, expect_float, matrix, operands};
use crate::ops::{Class, Io, Op};
use crate::shape::Spec;

pub(crate) mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
pub(crate) mod oracle;
#[cfg(test)]
mod tests;

/// FLOPs of an element, roughly.
pub(crate) const FLOPS: f64 = 4.0;

/// Normalises rows.
#[derive(Debug)]
pub struct RmsNorm {
    /// Added to the mean square.
    pub eps: f32,
}

/// `dx` from `dy f[N, D], x f[N, D], w f[D], rstd f32[N]`.
const INPUT_GRADIENT: GradientOp = GradientOp {
    flops: |(), io| 8.0 * io.inputs[0].elements() as f64,
    cuda: |(), io| cuda::input_gradient(io),
    ..GradientOp::new("rms_norm_input_gradient", (), |run, ()| cpu::input_gradient(run))
};

/// `dw f32[D]` from `dy f[N, D], x f[N, D], rstd f32[N]`.
const WEIGHT_GRADIENT: GradientOp = GradientOp {
    outputs: |(), of| vec![Spec::new(&[of[1].columns()], DType::F32)],
    flops: |(), io| 3.0 * io.inputs[0].elements() as f64,
    cuda: |(), io| cuda::weight_gradient(io),
    ..GradientOp::new("rms_norm_weight_gradient", (), |run, ()| cpu::weight_gradient(run))
};

/// Normalises the rows of `x` and applies `w`.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `x` is a float matrix and `w` is as long as a row.
pub fn rms_norm(g: &mut Graph<'_>, x: Tensor, w: Tensor, eps: f32) -> Result<Tensor> {
    Ok(g.apply(RmsNorm { eps }, &[x, w])?[0])
}

impl Op for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x, w] = operands(inputs)?;
        let [rows, columns] = matrix(x, "x")?;
        expect_float(w, &[columns], "the weight")?;
        Ok(vec![x.clone(), Spec::new(&[rows], DType::F32).with_live(x.live)])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let Some(dy) = backward.gradient(0) else { return Ok(()) };
        let (x, w, rstd) = (backward.input(0)?, backward.input(1)?, backward.output(1)?);
        if backward.wants(0) {
            backward.give(0, INPUT_GRADIENT, &[dy, x, w, rstd])?;
        }
        if backward.wants(1) {
            backward.give(1, WEIGHT_GRADIENT, &[dy, x, rstd])?;
        }
        Ok(())
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: FLOPS * io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn class(&self) -> Class {
        Class::Norm
    }

    fn fusible(&self) -> Option<Fusible> {
        Some(Fusible::RmsNorm { eps: self.eps })
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io, self.name(), 2, self.eps)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run, self.eps);
        Ok(())
    }
}
