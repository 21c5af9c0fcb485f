//! `slice_columns`: some columns of a matrix. `x T[.., C] -> T[.., count]`, T any float or `i32`.
//!
//! Columns `start..start + count` of the last dimension; bits are copied. Gradient: the output
//! gradient in those columns; an overwrite puts zeros into the others, an accumulation leaves them.
//! Rows beyond the live extent are neither read nor written. `split_columns` cuts a tensor into
//! pieces; `slice_rows` does the same to the leading dimension, where all rows must be live.

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::{Launches, Memory};
use crate::ops::gradient_op::GradientOp;
use crate::ops::shapes::{Shapes, expect_words, operands};
use crate::ops::slice_columns::cuda::Columns;
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

/// Copies columns.
#[derive(Debug)]
pub struct SliceColumns {
    /// The first.
    pub start: usize,
    /// How many.
    pub count: usize,
}

/// Columns `start..start + count` of `x`.
///
/// # Errors
/// [`crate::error::Error::Shape`] when they stick out, or `x` is a vector with a live extent.
pub fn slice_columns(g: &mut Graph<'_>, x: Tensor, start: usize, count: usize) -> Result<Tensor> {
    g.apply_one(SliceColumns { start, count }, &[x])
}

/// Pieces of `x` of these widths, side by side.
///
/// # Errors
/// As [`slice_columns`]; also unless the widths cover `x`.
pub fn split_columns(g: &mut Graph<'_>, x: Tensor, widths: &[usize]) -> Result<Vec<Tensor>> {
    let spec = g.spec(x);
    if widths.iter().sum::<usize>() != spec.columns() {
        let what = format!("{spec} into columns of {widths:?}");
        return Err(g.refuse("split_columns", what));
    }
    let mut start = 0;
    let mut piece = |&count: &usize| {
        start += count;
        slice_columns(g, x, start - count, count)
    };
    widths.iter().map(&mut piece).collect()
}

/// Rows `start..start + count` of the leading dimension of `x`.
///
/// # Errors
/// [`crate::error::Error::Shape`] when they stick out or `x` has a live extent.
pub fn slice_rows(g: &mut Graph<'_>, x: Tensor, start: usize, count: usize) -> Result<Tensor> {
    let (mut shape, per_row) = (g.spec(x).shape.clone(), g.spec(x).elements_per_row());
    let flat = g.reshape(x, &[1, g.spec(x).elements()])?;
    let slice = slice_columns(g, flat, start * per_row, count * per_row)?;
    shape[0] = count;
    g.reshape(slice, &shape)
}

/// Refuses a vector with a live extent: its columns are its leading dimension.
pub(crate) fn expect_columns(x: &Spec) -> std::result::Result<(), String> {
    if x.shape.is_empty() || (x.shape.len() == 1 && x.live.is_some()) {
        return Err(format!("{x} has no columns"));
    }
    expect_words(x, "x")
}

impl Op for SliceColumns {
    fn name(&self) -> &'static str {
        "slice_columns"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x] = operands(inputs)?;
        expect_columns(x)?;
        if self.start + self.count > x.columns() {
            return Err(format!("columns {}+{} of {x}", self.start, self.count));
        }
        Ok(vec![x.clone().with_columns(self.count)])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let (dy, columns) = (backward.need(0)?, backward.input_spec(0).columns());
        // `dy f[.., count] -> f[.., C]`.
        let rule = GradientOp {
            outputs: |&(_, columns), of| vec![of[0].clone().with_columns(columns)],
            flops: |_, _| 0.0,
            cuda: |&(start, columns), io| cuda::gradient(io, start, columns),
            ..GradientOp::new(
                "slice_columns_gradient",
                (self.start, columns),
                |run, &(start, columns)| cpu::gradient(run, start, columns),
            )
        };
        backward.give(0, rule, &[dy])
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 0.0, bytes: 2.0 * io.outputs[0].bytes() as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        let from = Columns { memory: Memory::Input(0), start: self.start };
        let to = Columns { memory: Memory::Output(0), start: 0 };
        Some(Launches::new([cuda::moved(io, from, to, self.count)?]))
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::slice(run, self.start, self.count);
        Ok(())
    }
}
