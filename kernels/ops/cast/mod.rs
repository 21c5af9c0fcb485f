//! `cast`: the same values stored as another float. `x f[..] -> f[..]`, to nearest, ties to even.
//!
//! Gradient: the output gradient in x's dtype; overwrites or accumulates. Elements beyond the live
//! extent are neither read nor written.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::shapes::{Shapes, expect_float, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

#[derive(Debug)]
struct Cast {
    to: DType,
}

/// `x` stored as `to`; the same tensor if it is already.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless both dtypes are `F32` or floats that are widened to it.
pub fn cast(g: &mut Graph<'_>, x: Tensor, to: DType) -> Result<Tensor> {
    if g.spec(x).dtype == to {
        return Ok(x);
    }
    g.apply_one(Cast { to }, &[x])
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x] = operands(inputs)?;
        expect_float(x, &x.shape, "x")?;
        if !self.to.widens_to_f32() {
            return Err(format!("{x} as {}", self.to));
        }
        Ok(vec![x.clone().with_dtype(self.to)])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let (dy, to) = (backward.need(0)?, backward.input_spec(0).dtype);
        backward.give(0, Self { to }, &[dy])
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
