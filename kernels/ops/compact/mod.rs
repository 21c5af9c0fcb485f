//! `compact`: where a mask is set. `mask i32[N] -> index i32[capacity], count i32[]`.
//!
//! The positions of elements that are not 0, in order; the index's live extent is the count. If
//! there are more than its capacity, the first ones are kept and the overflow flag is set. Elements
//! beyond the mask's live extent are not read, those beyond the count not written. No gradient.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Graph, Tensor};
use crate::launch::Launches;
use crate::ops::shapes::{Shapes, expect_i32, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

/// Finds set positions.
#[derive(Debug)]
pub struct Compact {
    /// Positions at most.
    pub capacity: usize,
}

/// The positions where `mask` is not 0 (`i32[capacity]`, live up to the count) and their count.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `mask` is `i32[N]`.
pub fn compact(g: &mut Graph<'_>, mask: Tensor, capacity: usize) -> Result<(Tensor, Tensor)> {
    let outputs = g.apply(Compact { capacity }, &[mask])?;
    Ok((g.with_live(outputs[0], outputs[1]), outputs[1]))
}

impl Op for Compact {
    fn name(&self) -> &'static str {
        "compact"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [mask] = operands(inputs)?;
        expect_i32(mask, &[mask.leading()], "mask")?;
        Ok(vec![Spec::new(&[self.capacity], DType::I32), Spec::scalar(DType::I32)])
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io, self.capacity)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run, self);
        Ok(())
    }
}
