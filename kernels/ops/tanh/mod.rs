//! `tanh`: the hyperbolic tangent. `x f[..] -> y f[..]`, same shape and dtype.
//!
//! Gradient: `dx = dy (1 - tanh(x)²)`, overwrites; backward reads x, for a y near 1 that was
//! rounded says little of its distance. Elements beyond the live extent are neither read nor
//! written.

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

/// The tangent.
#[derive(Debug)]
pub struct Tanh;

/// `dx` from `dy, x`.
#[derive(Debug)]
struct Gradient;

/// The hyperbolic tangent of every element.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `x` is a float.
pub fn tanh(g: &mut Graph<'_>, x: Tensor) -> Result<Tensor> {
    g.apply_one(Tanh, &[x])
}

impl Op for Tanh {
    fn name(&self) -> &'static str {
        "tanh"
    }

    fn outputs(&self, inputs: &[&Spec]) -> std::result::Result<Vec<Spec>, String> {
        let [x] = inputs else { return Err(format!("{} operands, not 1", inputs.len())) };
        if !x.dtype.is_float() {
            return Err(format!("x is {x}, not a float"));
        }
        Ok(vec![(*x).clone()])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let (dy, x) = (backward.need(0)?, backward.input(0)?);
        backward.give(0, Gradient, &[dy, x])
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 20.0 * io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::launches(io, "tanh")
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run);
        Ok(())
    }
}

impl Op for Gradient {
    fn name(&self) -> &'static str {
        "tanh_gradient"
    }

    fn outputs(&self, inputs: &[&Spec]) -> std::result::Result<Vec<Spec>, String> {
        let [dy, x] = inputs else { return Err(format!("{} operands, not 2", inputs.len())) };
        if dy.shape != x.shape || !dy.dtype.is_float() {
            return Err(format!("the gradient is {dy}, x is {x}"));
        }
        Ok(vec![(*dy).clone()])
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 23.0 * io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::launches(io, "tanh_gradient")
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::gradient(run);
        Ok(())
    }
}
