//! `grouped_linear`: every expert's own weight on its own rows.
//! `x f[R, I], w f[E, O, I], expert_start i32[E + 1] -> f[R, O]`, of x's dtype.
//!
//! Rows `expert_start[e]..expert_start[e + 1]` are multiplied by `w[e]` transposed. Gradients:
//! `dx = dy w[e]`; `dw[e] = dyᵀ x` over the expert's rows, `f32`, zeros for an expert without rows;
//! both overwrite or accumulate. Sums as in `linear`. Rows outside every expert's range, which
//! includes all beyond the live extent, are neither read nor written.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::gradient_op::GradientOp;
use crate::ops::group_by_expert::Grouping;
use crate::ops::shapes::{Shapes, expect_i32, matrix, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// Products with the weights of experts.
#[derive(Debug)]
pub struct GroupedLinear;

/// `dx f[R, I]` from `dy f[R, O], w f[E, O, I], expert_start i32[E + 1]`.
const INPUT_GRADIENT: GradientOp = GradientOp {
    stored: &[0, 1],
    outputs: |(), of| vec![of[0].clone().with_columns(of[1].columns())],
    flops: |(), io| product_flops(io, io.outputs[0].columns()),
    cuda: |(), io| cuda::input_gradient(io),
    ..GradientOp::new("grouped_linear_input_gradient", (), |run, ()| cpu::input_gradient(run))
};

/// `dw f32[E, O, I]` from `dy f[R, O], x f[R, I], expert_start i32[E + 1]`.
const WEIGHT_GRADIENT: GradientOp = GradientOp {
    stored: &[0, 1],
    outputs: |(), of| {
        let shape = [of[2].leading() - 1, of[0].columns(), of[1].columns()];
        vec![Spec::new(&shape, DType::F32)]
    },
    flops: |(), io| product_flops(io, io.inputs[1].columns()),
    cuda: |(), io| cuda::weight_gradient(io),
    ..GradientOp::new("grouped_linear_weight_gradient", (), |run, ()| cpu::weight_gradient(run))
};

/// Each row times the transposed weight of the expert that it stands with in `grouping`.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `w` is `f[E, O, I]` and rows have I elements.
pub fn grouped_linear(
    g: &mut Graph<'_>,
    rows: Tensor,
    w: Tensor,
    grouping: &Grouping,
) -> Result<Tensor> {
    g.apply_one(GroupedLinear, &[rows, w, grouping.expert_start])
}

/// Experts, outputs and inputs of a stack of weights.
fn weights(w: &Spec) -> std::result::Result<[usize; 3], String> {
    match w.shape[..] {
        [experts, out, inner] if w.dtype.widens_to_f32() => Ok([experts, out, inner]),
        _ => Err(format!("the weights are {w}, not float [experts, outputs, inputs]")),
    }
}

/// Of a product of every row of the first operand that has `out` results for each element.
fn product_flops(io: &Io, out: usize) -> f64 {
    2.0 * (io.inputs[0].elements() * out) as f64
}

impl Op for GroupedLinear {
    fn name(&self) -> &'static str {
        "grouped_linear"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x, w, start] = operands(inputs)?;
        let ([_, columns], [experts, out, inner]) = (matrix(x, "x")?, weights(w)?);
        expect_i32(start, &[experts + 1], "expert_start")?;
        if columns != inner {
            return Err(format!("x is {x}, the weights {w}: rows of different lengths"));
        }
        Ok(vec![x.clone().with_columns(out)])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let (dy, start) = (backward.need(0)?, backward.input(2)?);
        if backward.wants(0) {
            let w = backward.input(1)?;
            backward.give(0, INPUT_GRADIENT, &[dy, w, start])?;
        }
        if backward.wants(1) {
            let x = backward.input(0)?;
            backward.give(1, WEIGHT_GRADIENT, &[dy, x, start])?;
        }
        Ok(())
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: product_flops(io, io.outputs[0].columns()), bytes: io.bytes() as f64 }
    }

    fn reads_stored(&self, i: usize) -> bool {
        i < 2
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run);
        Ok(())
    }
}
