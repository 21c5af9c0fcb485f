//! `head_norm`: RMS norm of every query and key head (Qwen3), in the packing that attention reads.
//! `x f[N, (H+2K)·D], wq f[D], wk f[D] -> y`, of x's shape and dtype, saved `rstd f32[N, H+K]`.
//!
//! Legend: H query heads, then K key heads, then K value heads of D elements. Query heads are
//! normalised with `wq`, key heads with `wk` as in `rms_norm`; values are copied. Gradients: `dx`
//! overwrites; `dwq` and `dwk` sum over rows and heads in fixed blocks, `f32`, overwriting or
//! accumulating. Dead rows are left untouched.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::gradient_op::GradientOp;
use crate::ops::shapes::{Shapes, expect_float, matrix, operands};
use crate::ops::{Class, Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

/// Normalises query and key heads.
#[derive(Debug, Clone, Copy)]
pub struct HeadNorm {
    /// Query heads.
    pub heads: usize,
    /// Key heads, and as many value heads.
    pub kv_heads: usize,
    /// Added to the mean square.
    pub eps: f32,
}

/// Normalises the query heads of `x` with `wq` and its key heads with `wk`.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `x` is a float matrix of `norm`'s heads, as long as the
/// weights.
pub fn head_norm(
    g: &mut Graph<'_>,
    x: Tensor,
    wq: Tensor,
    wk: Tensor,
    norm: HeadNorm,
) -> Result<Tensor> {
    Ok(g.apply(norm, &[x, wq, wk])?[0])
}

impl HeadNorm {
    /// Heads that are normalised.
    fn normed(&self) -> usize {
        self.heads + self.kv_heads
    }

    /// Rows, and elements per head.
    fn check(&self, x: &Spec) -> std::result::Result<[usize; 2], String> {
        let ([rows, columns], all) = (matrix(x, "x")?, self.heads + 2 * self.kv_heads);
        if columns == 0 || columns % all.max(1) != 0 {
            return Err(format!("x is {x}: no {all} heads of one length"));
        }
        Ok([rows, columns / all])
    }
}

impl Op for HeadNorm {
    fn name(&self) -> &'static str {
        "head_norm"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x, wq, wk] = operands(inputs)?;
        let [rows, head_dim] = self.check(x)?;
        expect_float(wq, &[head_dim], "the query weight")?;
        expect_float(wk, &[head_dim], "the key weight")?;
        let rstd = Spec::new(&[rows, self.normed()], DType::F32).with_live(x.live);
        Ok(vec![x.clone(), rstd])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let Some(dy) = backward.gradient(0) else { return Ok(()) };
        let (x, rstd) = (backward.input(0)?, backward.output(1)?);
        if backward.wants(0) {
            let (wq, wk) = (backward.input(1)?, backward.input(2)?);
            let rule = GradientOp {
                accumulates: false,
                flops: |_, io| 8.0 * io.inputs[0].elements() as f64,
                cuda: |norm, io| cuda::input_gradient(io, norm),
                ..GradientOp::new("head_norm_input_gradient", *self, cpu::input_gradient)
            };
            backward.give(0, rule, &[dy, x, wq, wk, rstd])?;
        }
        for (i, keys) in [(1, false), (2, true)] {
            if backward.wants(i) {
                let of = (*self, keys, backward.input_spec(i).columns());
                let rule = GradientOp {
                    outputs: |&(_, _, head_dim), _| vec![Spec::new(&[head_dim], DType::F32)],
                    flops: |_, io| 3.0 * io.inputs[0].elements() as f64,
                    cuda: |(norm, keys, _), io| cuda::weight_gradient(io, norm, *keys),
                    ..GradientOp::new("head_norm_weight_gradient", of, |run, (norm, keys, _)| {
                        cpu::weight_gradient(run, norm, *keys);
                    })
                };
                backward.give(i, rule, &[dy, x, rstd])?;
            }
        }
        Ok(())
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 4.0 * io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn class(&self) -> Class {
        Class::Norm
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io, self)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run, self);
        Ok(())
    }
}
