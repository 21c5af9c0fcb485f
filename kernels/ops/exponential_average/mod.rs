//! `exponential_average`: a running average of a tensor, kept in a state. `x f[..] -> f[..]`.
//!
//! Written in the accumulating mode: `average += (1 - decay) · (x - average)`, by fma (a mean
//! teacher, arXiv:1703.01780). Overwriting copies x, which is how an average begins. Keep the
//! average in `f32`: a narrow one loses small steps. Elements beyond the live extent of x are
//! neither read nor written. No gradient.

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Graph, Tensor, Write};
use crate::launch::Launches;
use crate::ops::shapes::{Shapes, expect_float, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

/// Moves an average towards a tensor.
#[derive(Debug)]
pub struct ExponentialAverage {
    /// What is kept of the old average, in 0..=1.
    pub decay: f32,
}

/// Moves `average` (a state, or a frozen parameter) towards `x` of the same shape.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless both are floats with equally many elements and the decay
/// is in 0..=1.
pub fn exponential_average(
    g: &mut Graph<'_>,
    average: Tensor,
    x: Tensor,
    decay: f32,
) -> Result<()> {
    g.apply_into(ExponentialAverage { decay }, &[x], average, Write::Accumulate)
}

impl Op for ExponentialAverage {
    fn name(&self) -> &'static str {
        "exponential_average"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x] = operands(inputs)?;
        expect_float(x, &x.shape, "x")?;
        if !(0.0..=1.0).contains(&self.decay) {
            return Err(format!("decay {}", self.decay));
        }
        Ok(vec![x.clone()])
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::launches(io, 1.0 - self.decay)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run, self);
        Ok(())
    }
}
