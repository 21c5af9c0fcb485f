//! `multiply`: the elementwise product of two tensors of one shape. `a f[..], b f[..] -> f[..]`, of
//! a's dtype. Gradients: `da = dy b`, `db = dy a`; overwrites or accumulates. Elements beyond the
//! live extent are neither read nor written.

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

/// `a b`.
#[derive(Debug)]
pub struct Multiply;

/// `a b`, both of one shape.
///
/// # Errors
/// [`crate::error::Error::Shape`] when shapes differ or one is not a float.
pub fn multiply(g: &mut Graph<'_>, a: Tensor, b: Tensor) -> Result<Tensor> {
    g.apply_one(Multiply, &[a, b])
}

impl Op for Multiply {
    fn name(&self) -> &'static str {
        "multiply"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [a, b] = operands(inputs)?;
        expect_float(a, &b.shape, "the first factor")?;
        expect_float(b, &a.shape, "the second factor")?;
        if a.live.is_some() && b.live.is_some() && a.live != b.live {
            return Err(format!("{a} and {b} are live up to different extents"));
        }
        Ok(vec![a.clone().with_live(a.live.or(b.live))])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let dy = backward.need(0)?;
        for i in 0..2 {
            if backward.wants(i) {
                let other = backward.input(1 - i)?;
                backward.give(i, Self, &[dy, other])?;
            }
        }
        Ok(())
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.outputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run);
        Ok(())
    }
}
