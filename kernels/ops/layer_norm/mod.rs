//! `layer_norm`: rows of mean 0 and variance 1, then an affine map (Ba et al., arXiv:1607.06450).
//! `x f[N, D], w f[D], b f[D] -> y f[N, D]` (dtype of x), saved `mean f32[N]`, `rstd f32[N]`:
//! `y = (x - mean) * rstd * w + b`, `rstd = 1 / sqrt(variance + eps)`, variance over D.
//!
//! Gradients: `dx` overwrites or accumulates; `dw = Σ dy (x - mean) rstd` and `db = Σ dy` over rows
//! overwrite or accumulate in `f32`, summed in fixed blocks. Dead rows are left untouched.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::column_sum::COLUMN_SUM;
use crate::ops::fusible::Fusible;
use crate::ops::gradient_op::GradientOp;
use crate::ops::shapes::{Shapes, expect_float, matrix, operands};
use crate::ops::{Class, Io, Op};
use crate::shape::Spec;

pub(crate) mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// FLOPs of an element, roughly.
pub(crate) const FLOPS: f64 = 8.0;

/// Normalises rows.
#[derive(Debug)]
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f32,
}

/// `dx` from `dy f[N, D], x f[N, D], w f[D], mean f32[N], rstd f32[N]`.
const INPUT_GRADIENT: GradientOp = GradientOp {
    flops: |(), io| 11.0 * io.inputs[0].elements() as f64,
    cuda: |(), io| cuda::input_gradient(io),
    ..GradientOp::new("layer_norm_input_gradient", (), |run, ()| cpu::input_gradient(run))
};

/// `dw f32[D]` from `dy f[N, D], x f[N, D], mean f32[N], rstd f32[N]`.
const WEIGHT_GRADIENT: GradientOp = GradientOp {
    outputs: |(), of| vec![Spec::new(&[of[1].columns()], DType::F32)],
    flops: |(), io| 4.0 * io.inputs[0].elements() as f64,
    cuda: |(), io| cuda::weight_gradient(io),
    ..GradientOp::new("layer_norm_weight_gradient", (), |run, ()| cpu::weight_gradient(run))
};

/// Normalises the rows of `x` and applies `w` and `b`.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `x` is a float matrix and `w`, `b` are as long as a row.
pub fn layer_norm(g: &mut Graph<'_>, x: Tensor, w: Tensor, b: Tensor, eps: f32) -> Result<Tensor> {
    Ok(g.apply(LayerNorm { eps }, &[x, w, b])?[0])
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x, w, b] = operands(inputs)?;
        let [rows, columns] = matrix(x, "x")?;
        expect_float(w, &[columns], "the weight")?;
        expect_float(b, &[columns], "the bias")?;
        let saved = Spec::new(&[rows], DType::F32).with_live(x.live);
        Ok(vec![x.clone(), saved.clone(), saved])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let Some(dy) = backward.gradient(0) else { return Ok(()) };
        let (x, w) = (backward.input(0)?, backward.input(1)?);
        let (mean, rstd) = (backward.output(1)?, backward.output(2)?);
        if backward.wants(0) {
            backward.give(0, INPUT_GRADIENT, &[dy, x, w, mean, rstd])?;
        }
        if backward.wants(1) {
            backward.give(1, WEIGHT_GRADIENT, &[dy, x, mean, rstd])?;
        }
        if backward.wants(2) {
            backward.give(2, COLUMN_SUM, &[dy])?;
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
        Some(Fusible::LayerNorm { eps: self.eps })
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io, self.name(), self.eps)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run, self.eps);
        Ok(())
    }
}
