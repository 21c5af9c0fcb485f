//! `copy`: the same elements in another tensor, converted between float dtypes. `T[..] -> T[..]`.
//! Accumulates: then it is how a finished gradient is added to a weight's gradient buffer, or
//! counts to a step sum.

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Graph, Tensor, Write};
use crate::launch::Launches;
use crate::ops::shapes::{Shapes, expect_words, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

/// Copies its input.
#[derive(Debug)]
pub struct Copy;

/// Copies `source` into an existing tensor: a step buffer's slice, a state.
///
/// # Errors
/// [`crate::error::Error::Shape`] when the numbers of elements differ.
pub fn copy_into(g: &mut Graph<'_>, source: Tensor, target: Tensor) -> Result<()> {
    g.apply_into(Copy, &[source], target, Write::Overwrite)
}

/// Adds `source` to an existing tensor: load counts to a step sum.
///
/// # Errors
/// As [`copy_into`].
pub fn add_into(g: &mut Graph<'_>, source: Tensor, target: Tensor) -> Result<()> {
    g.apply_into(Copy, &[source], target, Write::Accumulate)
}

impl Op for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x] = operands(inputs)?;
        expect_words(x, "the source")?;
        Ok(vec![x.clone()])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let gradient = backward.need(0)?;
        backward.pass(0, gradient)
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run);
        Ok(())
    }
}
