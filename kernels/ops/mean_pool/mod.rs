//! `mean_pool`: one row per sequence. `x f[B, T, D], mask i32[B, T]? -> f[B, D]`, of x's dtype.
//!
//! The mean over the positions whose mask is not 0, or over all T without a mask; zeros if there is
//! none. Positions are added in order by fma from 0, then multiplied by 1 / count. Masked positions
//! are not read. Gradient: `dy / count` at every counted position, 0 at the others; overwrites or
//! accumulates. Sequences beyond the live extent are neither read nor written.

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::gradient_op::GradientOp;
use crate::ops::shapes::{Shapes, expect_i32, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// Means over positions.
#[derive(Debug)]
pub struct MeanPool;

/// The mean of each sequence. `x` is `f[B, T, D]`, or `f[B·T, D]` if all rows are live; `mask` is
/// `i32[B, T]` or `i32[B·T]`.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless shapes are these.
pub fn mean_pool(
    g: &mut Graph<'_>,
    x: Tensor,
    positions: usize,
    mask: Option<Tensor>,
) -> Result<Tensor> {
    let shape = g.spec(x).shape.clone();
    let x = match shape[..] {
        [rows, columns] if positions > 0 => {
            g.reshape(x, &[rows / positions, positions, columns])?
        }
        _ => x,
    };
    let sequences = g.spec(x).leading();
    match mask {
        Some(mask) => {
            let mask = match g.spec(mask).shape.len() {
                1 => g.reshape(mask, &[sequences, positions])?,
                _ => mask,
            };
            g.apply_one(MeanPool, &[x, mask])
        }
        None => g.apply_one(MeanPool, &[x]),
    }
}

impl Op for MeanPool {
    fn name(&self) -> &'static str {
        "mean_pool"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x] = operands(&inputs[..inputs.len().min(1)])?;
        let [sequences, positions, columns] = x.shape[..] else {
            return Err(format!("x is {x}, not [sequences, positions, columns]"));
        };
        if let [mask] = inputs[1..] {
            expect_i32(mask, &[sequences, positions], "the mask")?;
        }
        Ok(vec![Spec::new(&[sequences, columns], x.dtype).with_live(x.live)])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let dy = backward.need(0)?;
        // `dy f[B, D], mask i32[B, T]? -> f[B, T, D]`.
        let positions = backward.input_spec(0).shape[1];
        let rule = GradientOp {
            outputs: |&positions, of| {
                let shape = [of[0].leading(), positions, of[0].columns()];
                vec![Spec::new(&shape, of[0].dtype).with_live(of[0].live)]
            },
            flops: |_, io| io.outputs[0].elements() as f64,
            cuda: |&positions, io| cuda::gradient(io, positions),
            ..GradientOp::new("mean_pool_gradient", positions, |run, &positions| {
                cpu::gradient(run, positions);
            })
        };
        if backward.inputs() > 1 {
            let mask = backward.input(1)?;
            return backward.give(0, rule, &[dy, mask]);
        }
        backward.give(0, rule, &[dy])
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run);
        Ok(())
    }
}
