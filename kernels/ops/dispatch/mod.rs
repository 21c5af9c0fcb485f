//! `dispatch`: tokens copied into the rows where their experts find them.
//! `x f[N, D], pair_of i32[R], row_of i32[N, k] -> f[R, D]`, of x's dtype.
//!
//! Row r is the token of pair `pair_of[r]`; the live extent is that of `pair_of`. Gradient of `x`:
//! each token is the sum of its rows' gradients in order of its choices, from 0; overwrites or
//! accumulates. Dead rows are neither read nor written.

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::combine::SUM_ROWS;
use crate::ops::group_by_expert::Grouping;
use crate::ops::shapes::{Shapes, expect_i32, matrix, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

/// Copies tokens into rows.
#[derive(Debug)]
pub struct Dispatch;

/// The rows of `x` in the order of `grouping`.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `x` is a float matrix with a row per token.
pub fn dispatch(g: &mut Graph<'_>, x: Tensor, grouping: &Grouping) -> Result<Tensor> {
    g.apply_one(Dispatch, &[x, grouping.pair_of, grouping.row_of])
}

impl Op for Dispatch {
    fn name(&self) -> &'static str {
        "dispatch"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x, pair_of, row_of] = operands(inputs)?;
        let [tokens, columns] = matrix(x, "x")?;
        expect_i32(row_of, &[tokens, row_of.columns()], "row_of")?;
        expect_i32(pair_of, &[pair_of.leading()], "pair_of")?;
        Ok(vec![Spec::new(&[pair_of.leading(), columns], x.dtype).with_live(pair_of.live)])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let (drows, row_of) = (backward.need(0)?, backward.input(2)?);
        backward.give(0, SUM_ROWS, &[drows, row_of])
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 0.0, bytes: 2.0 * io.outputs[0].bytes() as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run);
        Ok(())
    }
}
