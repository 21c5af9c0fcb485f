//! `linear`: `y = x wᵀ + b`. `x f[N, I], w f[O, I], b f[O]? -> y f[N, O]`, of x's dtype or another.
//!
//! Gradients: `dx = dy w` overwrites or accumulates; `dw = dyᵀ x` and `db = Σ dy` over the live
//! rows are `f32` and overwrite or accumulate. Every element is one sum in ascending order of its
//! inner index (`cpu::gemm` says where it is cut). Dead rows are neither read nor written. An
//! activation function behind it can be part of the product's store (`fused`).

use std::sync::Arc;

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Target, Tensor};
use crate::launch::Launches;
use crate::ops::column_sum::COLUMN_SUM;
use crate::ops::fusible::Fusible;
use crate::ops::gradient_op::GradientOp;
use crate::ops::shapes::{Shapes, expect_float, matrix, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
pub(crate) mod cuda;
mod fused;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// A matrix product with a weight, and perhaps a bias.
#[derive(Debug, Default)]
pub struct Linear {
    /// As what the result is stored; as x if not given.
    pub to: Option<DType>,
}

/// `dx f[N, I]` from `dy f[N, O], w f[O, I]`.
const fn input_gradient(x: DType) -> GradientOp<DType> {
    GradientOp {
        stored: &[0, 1],
        outputs: |&x, of| vec![of[0].clone().with_columns(of[1].columns()).with_dtype(x)],
        flops: |_, io| product_flops(io),
        cuda: |_, io| cuda::input_gradient(io),
        ..GradientOp::new("linear_input_gradient", x, |run, _| cpu::input_gradient(run))
    }
}

/// `dw f32[O, I]` from `dy f[N, O], x f[N, I]`.
const WEIGHT_GRADIENT: GradientOp = GradientOp {
    stored: &[0, 1],
    outputs: |(), of| vec![Spec::new(&[of[0].columns(), of[1].columns()], DType::F32)],
    flops: |(), io| 2.0 * io.inputs[0].elements() as f64 * io.inputs[1].columns() as f64,
    cuda: |(), io| cuda::weight_gradient(io),
    ..GradientOp::new("linear_weight_gradient", (), |run, ()| cpu::weight_gradient(run))
};

/// `x wᵀ`, plus `bias` if there is one.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `x` and `w` are float matrices with rows of one length and
/// `bias` has an element per row of `w`.
pub fn linear(g: &mut Graph<'_>, x: Tensor, w: Tensor, bias: Option<Tensor>) -> Result<Tensor> {
    let inputs: Vec<Tensor> = [x, w].into_iter().chain(bias).collect();
    g.apply_one(Linear::default(), &inputs)
}

/// [`linear`] with a result that is stored as `to`: the logits of a router in `F32`.
///
/// # Errors
/// As [`linear`], and unless `to` is `F32` or a float that is widened to it.
pub fn linear_to(
    g: &mut Graph<'_>,
    x: Tensor,
    w: Tensor,
    bias: Option<Tensor>,
    to: DType,
) -> Result<Tensor> {
    let inputs: Vec<Tensor> = [x, w].into_iter().chain(bias).collect();
    g.apply_one(Linear { to: Some(to) }, &inputs)
}

/// FLOPs and bytes of a product of every row of the first operand with the weight, the second.
fn product_cost(io: &Io) -> Cost {
    Cost { flops: product_flops(io), bytes: io.bytes() as f64 }
}

fn product_flops(io: &Io) -> f64 {
    2.0 * io.inputs[0].leading() as f64 * io.inputs[1].elements() as f64
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x, w] = operands(&inputs[..inputs.len().min(2)])?;
        let ([_, columns], [out, inner]) = (matrix(x, "x")?, matrix(w, "the weight")?);
        if columns != inner {
            return Err(format!("x is {x}, the weight {w}: rows of different lengths"));
        }
        match inputs[2..] {
            [] => {}
            [bias] => expect_float(bias, &[out], "the bias")?,
            _ => return Err(format!("{} operands, not 2 or 3", inputs.len())),
        }
        let to = self.to.unwrap_or(x.dtype);
        if !to.widens_to_f32() {
            return Err(format!("a product of {x} as {to}"));
        }
        Ok(vec![x.clone().with_columns(out).with_dtype(to)])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let dy = backward.need(0)?;
        if backward.inputs() > 2 && backward.wants(2) {
            backward.give(2, COLUMN_SUM, &[dy])?;
        }
        if backward.wants(1) {
            let x = backward.input(0)?;
            backward.give(1, WEIGHT_GRADIENT, &[dy, x])?;
        }
        // Last: by now x is no longer needed beside dx.
        if backward.wants(0) {
            let (w, x) = (backward.input(1)?, backward.input_spec(0).dtype);
            backward.give(0, input_gradient(x), &[dy, w])?;
        }
        Ok(())
    }

    fn cost(&self, io: &Io) -> Cost {
        product_cost(io)
    }

    fn fused_with(&self, next: Fusible, keeps: bool, to: Target) -> Option<Arc<dyn Op>> {
        match next {
            _ if self.to.is_some() => None,
            Fusible::Activation(function) if !keeps || to != Target::Cpu => {
                Some(Arc::new(fused::Activated { function, keeps }))
            }
            _ => None,
        }
    }

    fn reads_stored(&self, i: usize) -> bool {
        i < 2
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io, None, false)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::product(run, &|_| ());
        Ok(())
    }
}
