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
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::ops::group_by_expert::Grouping;
use crate::ops::shapes::{Shapes, expect_float, expect_i32, matrix, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// Weighs and adds.
#[derive(Debug)]
pub struct Combine;

/// Adds a token's rows: the gradient of `dispatch`. `rows f[R, D], row_of i32[N, k] -> f[N, D]`.
#[derive(Debug)]
pub struct SumRows;

/// The gradient of the rows: `dy f[N, D], pair_of i32[R], weight f[N, k] -> f[R, D]`.
#[derive(Debug)]
pub struct CombineRowsGradient;

/// The gradient of the weights: `dy f[N, D], rows f[R, D], row_of i32[N, k] -> f32[N, k]`.
#[derive(Debug)]
pub struct CombineWeightGradient;

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

fn sum_spec(rows: &Spec, row_of: &Spec) -> std::result::Result<Spec, String> {
    let [_, columns] = matrix(rows, "rows")?;
    expect_i32(row_of, &[row_of.rows(), row_of.columns()], "row_of")?;
    Ok(Spec::new(&[row_of.rows(), columns], rows.dtype).with_live(row_of.live))
}

impl Op for Combine {
    fn name(&self) -> &'static str {
        "combine"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [rows, row_of, weight, pair_of] = operands(inputs)?;
        expect_float(weight, &row_of.shape, "the weights")?;
        expect_i32(pair_of, &[rows.leading()], "pair_of")?;
        Ok(vec![sum_spec(rows, row_of)?])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let dy = backward.need(0)?;
        if backward.wants(0) {
            let (weight, pair_of) = (backward.input(2)?, backward.input(3)?);
            backward.give(0, CombineRowsGradient, &[dy, pair_of, weight])?;
        }
        if backward.wants(2) {
            let (rows, row_of) = (backward.input(0)?, backward.input(1)?);
            backward.give(2, CombineWeightGradient, &[dy, rows, row_of])?;
        }
        Ok(())
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 2.0 * io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::sum(run, Some(run.input::<f32>(2)));
        Ok(())
    }
}

impl Op for SumRows {
    fn name(&self) -> &'static str {
        "sum_rows"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [rows, row_of] = operands(inputs)?;
        Ok(vec![sum_spec(rows, row_of)?])
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::sum(run, None);
        Ok(())
    }
}

impl Op for CombineRowsGradient {
    fn name(&self) -> &'static str {
        "combine_rows_gradient"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [dy, pair_of, _weight] = operands(inputs)?;
        let [_, columns] = matrix(dy, "the gradient")?;
        Ok(vec![Spec::new(&[pair_of.leading(), columns], dy.dtype).with_live(pair_of.live)])
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.outputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::rows_gradient(run);
        Ok(())
    }
}

impl Op for CombineWeightGradient {
    fn name(&self) -> &'static str {
        "combine_weight_gradient"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [_dy, _rows, row_of] = operands(inputs)?;
        Ok(vec![row_of.clone().with_dtype(DType::F32)])
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 2.0 * io.inputs[1].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::weight_gradient(run);
        Ok(())
    }
}
