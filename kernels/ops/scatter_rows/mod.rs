//! `scatter_rows`: a copy with some rows replaced.
//! `x T[N, ..], values T[M, ..], index i32[M] -> T[N, ..]`, T any float or `i32`.
//!
//! Numbers in `index` are distinct; one outside the live rows of `x` (-1, say) replaces nothing.
//! Gradient of `x`: the output gradient with zeros in replaced rows. Of `values`: the output
//! gradient's rows at `index`, zeros where nothing was replaced. Both overwrite. Rows beyond a live
//! extent (that of `x` is the output's, that of `index` counts for `values`) are neither read nor
//! written. No float operation happens: bits are copied.

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::gather_rows::GatherRows;
use crate::ops::gradient_op::GradientOp;
use crate::ops::shapes::{Shapes, expect_i32, expect_words, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

/// Replaces rows.
#[derive(Debug)]
pub struct ScatterRows;

/// The gradient of [`ScatterRows`] with respect to `x`: `dy f[N, ..], index i32[M] -> f[N, ..]`.
const CLEAR_ROWS: GradientOp = GradientOp {
    accumulates: false,
    flops: |(), _| 0.0,
    cuda: |(), io| cuda::clear(io),
    ..GradientOp::new("clear_rows", (), |run, ()| cpu::clear(run))
};

/// `x` with row `index[m]` replaced by row m of `values`.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless rows and dtypes of `x` and `values` agree and `index`
/// names a row for each row of `values`.
pub fn scatter_rows(g: &mut Graph<'_>, x: Tensor, values: Tensor, index: Tensor) -> Result<Tensor> {
    g.apply_one(ScatterRows, &[x, values, index])
}

impl Op for ScatterRows {
    fn name(&self) -> &'static str {
        "scatter_rows"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x, values, index] = operands(inputs)?;
        expect_i32(index, &[values.leading()], "index")?;
        expect_words(x, "x")?;
        let rows_agree = x.shape.get(1..) == values.shape.get(1..) && !x.shape.is_empty();
        if !rows_agree || x.dtype != values.dtype {
            return Err(format!("rows of {values} into {x}"));
        }
        Ok(vec![x.clone()])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let (dy, index) = (backward.need(0)?, backward.input(2)?);
        if backward.wants(0) {
            let dx = backward.graph().apply_one(CLEAR_ROWS, &[dy, index])?;
            backward.pass(0, dx)?;
        }
        if backward.wants(1) {
            let dvalues = backward.graph().apply_one(GatherRows, &[dy, index])?;
            backward.pass(1, dvalues)?;
        }
        Ok(())
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 0.0, bytes: io.bytes() as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::scatter(io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::scatter(run);
        Ok(())
    }
}
