//! `combine`: what a token's experts made of it, weighted and added up.
//! `rows f[R, D], row_of i32[N, k], weight f[N, k], pair_of i32[R] -> f[N, D]`, of the rows' dtype.
//!
//! Token n is Σ weight[n, j] · rows[row_of[n, j]] by fma in order of j, from 0; a pair without a
//! row (-1) adds nothing. Gradients: of a row, its pair's weight times its token's gradient; of a
//! weight, the inner product of both rows, `f32`; both overwrite or accumulate. The live extent is
//! that of `row_of`. Dead rows are neither read nor written.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::gradient_op::GradientOp;
use crate::ops::group_by_expert::Grouping;
use crate::ops::shapes::{Shapes, expect_float, expect_i32, matrix, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// Weighs and adds.
#[derive(Debug)]
pub struct Combine;

/// Adds a token's rows: the gradient of `dispatch`. `rows f[R, D], row_of i32[N, k] -> f[N, D]`.
pub(crate) const SUM_ROWS: GradientOp = GradientOp {
    outputs: |(), of| vec![sum_spec(of[0], of[1])],
    cuda: |(), io| cuda::sum(io),
    ..GradientOp::new("sum_rows", (), |run, ()| cpu::sum(run, None))
};

/// The gradient of the rows: `dy f[N, D], pair_of i32[R], weight f[N, k] -> f[R, D]`.
const ROWS_GRADIENT: GradientOp = GradientOp {
    outputs: |(), of| {
        let shape = [of[1].leading(), of[0].columns()];
        vec![Spec::new(&shape, of[0].dtype).with_live(of[1].live)]
    },
    flops: |(), io| io.outputs[0].elements() as f64,
    cuda: |(), io| cuda::rows_gradient(io),
    ..GradientOp::new("combine_rows_gradient", (), |run, ()| cpu::rows_gradient(run))
};

/// The gradient of the weights: `dy f[N, D], rows f[R, D], row_of i32[N, k] -> f32[N, k]`.
const WEIGHT_GRADIENT: GradientOp = GradientOp {
    outputs: |(), of| vec![of[2].clone().with_dtype(DType::F32)],
    flops: |(), io| 2.0 * io.inputs[1].elements() as f64,
    cuda: |(), io| cuda::weight_gradient(io),
    ..GradientOp::new("combine_weight_gradient", (), |run, ()| cpu::weight_gradient(run))
};

/// A row per token: the weighted sum of its rows in `grouping`.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless there is a weight for every pair and a row for every row
/// of the grouping.
pub fn combine(
    g: &mut Graph<'_>,
    rows: Tensor,
    weight: Tensor,
    grouping: &Grouping,
) -> Result<Tensor> {
    g.apply_one(Combine, &[rows, grouping.row_of, weight, grouping.pair_of])
}

/// A row for each token.
fn sum_spec(rows: &Spec, row_of: &Spec) -> Spec {
    Spec::new(&[row_of.rows(), rows.columns()], rows.dtype).with_live(row_of.live)
}

impl Op for Combine {
    fn name(&self) -> &'static str {
        "combine"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [rows, row_of, weight, pair_of] = operands(inputs)?;
        matrix(rows, "rows")?;
        expect_i32(row_of, &[row_of.rows(), row_of.columns()], "row_of")?;
        expect_float(weight, &row_of.shape, "the weights")?;
        expect_i32(pair_of, &[rows.leading()], "pair_of")?;
        Ok(vec![sum_spec(rows, row_of)])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let dy = backward.need(0)?;
        if backward.wants(0) {
            let (weight, pair_of) = (backward.input(2)?, backward.input(3)?);
            backward.give(0, ROWS_GRADIENT, &[dy, pair_of, weight])?;
        }
        if backward.wants(2) {
            let (rows, row_of) = (backward.input(0)?, backward.input(1)?);
            backward.give(2, WEIGHT_GRADIENT, &[dy, rows, row_of])?;
        }
        Ok(())
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 2.0 * io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::sum(run, Some(run.input::<f32>(2)));
        Ok(())
    }
}
