//! `gather_rows`: rows by number. `x T[N, ..], index i32[M] -> T[M, ..]`, T any float or `i32`.
//!
//! A number outside the live rows of `x` (-1, say) gives a row of zeros and takes no gradient.
//! Gradient of `x`: every live row is the sum of the output gradients that name it, in the order of
//! `index`; overwrites or accumulates. Rows beyond the live extent of `index` are neither read nor
//! written, those beyond the extent of `x` neither read nor given a gradient. No float operation
//! happens forward: bits are copied.

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::gradient_op::GradientOp;
use crate::ops::shapes::{Shapes, expect_i32, expect_words, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// Picks rows.
#[derive(Debug)]
pub struct GatherRows;

/// Row `index[m]` of `x` for every m.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `index` is `i32[M]` and `x` has a leading dimension.
pub fn gather_rows(g: &mut Graph<'_>, x: Tensor, index: Tensor) -> Result<Tensor> {
    g.apply_one(GatherRows, &[x, index])
}

impl Op for GatherRows {
    fn name(&self) -> &'static str {
        "gather_rows"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x, index] = operands(inputs)?;
        expect_i32(index, &[index.leading()], "index")?;
        expect_words(x, "x")?;
        if x.shape.is_empty() {
            return Err(format!("x is {x}, which has no rows"));
        }
        let mut shape = x.shape.clone();
        shape[0] = index.leading();
        Ok(vec![Spec::new(&shape, x.dtype).with_live(index.live)])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let (dy, index) = (backward.need(0)?, backward.input(1)?);
        let x = backward.input_spec(0).clone();
        let inputs: Vec<Tensor> = [index, dy].into_iter().chain(x.live).collect();
        // `index i32[M], dy f[M, ..]` and the live extent of x, if it has one.
        let rule = GradientOp {
            outputs: |x: &Spec, _| vec![x.clone()],
            flops: |_, io| io.inputs[1].elements() as f64,
            cuda: |_, io| cuda::gradient(io),
            ..GradientOp::new("gather_rows_gradient", x, cpu::gradient)
        };
        backward.give(0, rule, &inputs)
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 0.0, bytes: (io.inputs[1].bytes() + 2 * io.outputs[0].bytes()) as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io, 1)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run);
        Ok(())
    }
}
