//! `dropout`: zeroes elements at random and scales the rest (Srivastava et al., JMLR 15, 2014).
//! `x f[N, C] -> f[N, C]`, of x's dtype: 0 with probability `rate`, else `x / (1 - rate)`.
//!
//! Whether an element is kept is a pure function of the run's seed, the node's site, the step, the
//! global sample (the micro-batch's first sample plus `row / rows_per_sample`) and the element's
//! place in its sample: kept where the uniform number is at least `rate`. Nothing is stored; the
//! gradient is the same op on dy, at the same site, and draws the same mask. Overwrites. Dead rows
//! are left untouched.

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::shapes::{Shapes, matrix, operands};
use crate::ops::{Class, Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

/// Zeroes elements at random.
#[derive(Debug, Clone, Copy)]
struct Dropout {
    rate: f32,
    rows_per_sample: usize,
}

/// Zeroes elements of `x` with probability `rate`; a rate of 0 adds no node.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `x` is a float matrix of whole samples and the rate is in
/// 0..1.
pub fn dropout(g: &mut Graph<'_>, x: Tensor, rate: f32, rows_per_sample: usize) -> Result<Tensor> {
    if rate == 0.0 {
        return Ok(x);
    }
    g.apply_one(Dropout { rate, rows_per_sample }, &[x])
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x] = operands(inputs)?;
        let [rows, _] = matrix(x, "x")?;
        if !(0.0..1.0).contains(&self.rate) {
            return Err(format!("a rate of {}, not in 0..1", self.rate));
        }
        if self.rows_per_sample == 0 || rows % self.rows_per_sample != 0 {
            return Err(format!("x is {x}: no whole samples of {} rows", self.rows_per_sample));
        }
        Ok(vec![x.clone()])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let dy = backward.need(0)?;
        backward.give(0, *self, &[dy])
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.outputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn class(&self) -> Class {
        Class::Activation
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io, self.rate, self.rows_per_sample)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run, self);
        Ok(())
    }
}
