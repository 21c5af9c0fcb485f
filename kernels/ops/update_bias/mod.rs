//! `update_bias`: the step of a router's selection bias against its load.
//! `counts i32[E] -> f32[E]`, meant to be added to the bias.
//!
//! An expert below the mean load gets `+rate`, one above it `-rate`, one at the mean 0 (Wang et
//! al., arXiv:2408.15664; DeepSeek-V3, arXiv:2412.19437). Exact: `count · E` is compared with the
//! total in integers. Overwrites or accumulates. No gradient.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Graph, Tensor, Write};
use crate::launch::Launches;
use crate::ops::shapes::{Shapes, expect_i32, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

/// The step.
#[derive(Debug)]
pub struct UpdateBias {
    /// Its size.
    pub rate: f32,
}

/// Adds the step to `bias` (a state, `f32[E]`), given the loads of the whole global batch: a step
/// sum `i32[E]`, which only a program that runs after all micro-batches sees complete.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless both have an element per expert.
pub fn update_bias(g: &mut Graph<'_>, bias: Tensor, counts: Tensor, rate: f32) -> Result<()> {
    g.apply_into(UpdateBias { rate }, &[counts], bias, Write::Accumulate)
}

impl Op for UpdateBias {
    fn name(&self) -> &'static str {
        "update_bias"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [counts] = operands(inputs)?;
        expect_i32(counts, &[counts.leading()], "the counts")?;
        Ok(vec![Spec::new(&counts.shape, DType::F32)])
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        Some(cuda::forward(io, self))
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run, self);
        Ok(())
    }
}
