//! `scale`: a tensor times a constant. `x f[..] -> f[..]`, same shape and dtype. Gradient: the same
//! op on dy; overwrites or accumulates. Elements beyond the live extent are neither read nor
//! written.

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::shapes::{Shapes, expect_float, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

/// `x` times a constant.
#[derive(Debug, Clone, Copy)]
pub struct Scale(pub f32);

/// `x · factor`.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `x` is a float.
pub fn scale(g: &mut Graph<'_>, x: Tensor, factor: f32) -> Result<Tensor> {
    g.apply_one(Scale(factor), &[x])
}

impl Op for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x] = operands(inputs)?;
        expect_float(x, &x.shape, "x")?;
        Ok(vec![x.clone()])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let dy = backward.need(0)?;
        backward.give(0, *self, &[dy])
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.outputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io, self.0)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run, self);
        Ok(())
    }
}
