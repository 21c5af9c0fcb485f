//! `mean_squared_error`: `a f[N, ..], b f[N, ..], scale f32[] -> loss f32[], loss_sum f32[]`.
//!
//! `loss_sum` is Σ (a - b)² over all live elements, in f64: inside a row of the leading dimension
//! in order, then over rows in order. `loss` is `scale` times it; a mean has the scale 1 /
//! elements. Gradients: `2 · scale · (a - b)` of a, its negative of b; overwrite or accumulate.
//! Rows beyond the live extent are neither read nor written.

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::gradient_op::GradientOp;
use crate::ops::loss::{apply_loss, expect_scalar, gradient_of_rows, loss_specs, of_rows};
use crate::ops::shapes::{Shapes, expect_float, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// The loss.
#[derive(Debug)]
pub struct MeanSquaredError;

/// The gradient of its first operand: `a, b, scale f32[], dloss f32[] -> f[N, ..]`. With operands
/// exchanged it is that of the second.
const GRADIENT: GradientOp = GradientOp {
    outputs: |(), of| vec![of[0].clone().with_live(of[0].live.or(of[1].live))],
    flops: |(), io| 2.0 * io.inputs[0].elements() as f64,
    cuda: |(), io| gradient_of_rows(io, "mean_squared_error", &[]),
    ..GradientOp::new("mean_squared_error_gradient", (), |run, ()| cpu::gradient(run))
};

/// Loss and its unscaled sum. Nothing flows back through the sum or to the scale.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `a` and `b` are floats of one shape and the scale one
/// `f32`.
pub fn mean_squared_error(
    g: &mut Graph<'_>,
    a: Tensor,
    b: Tensor,
    scale: Tensor,
) -> Result<(Tensor, Tensor)> {
    let outputs = apply_loss(g, MeanSquaredError, &[a, b, scale])?;
    Ok((outputs[0], outputs[1]))
}

fn check(a: &Spec, b: &Spec, scale: &Spec) -> std::result::Result<(), String> {
    expect_float(a, &a.shape, "a")?;
    expect_float(b, &a.shape, "b")?;
    expect_scalar(scale, "the scale")
}

impl Op for MeanSquaredError {
    fn name(&self) -> &'static str {
        "mean_squared_error"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [a, b, scale] = operands(inputs)?;
        check(a, b, scale)?;
        Ok(loss_specs().to_vec())
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let Some(dloss) = backward.gradient(0) else { return Ok(()) };
        let (a, b, scale) = (backward.input(0)?, backward.input(1)?, backward.input(2)?);
        for (i, operands) in [[a, b], [b, a]].into_iter().enumerate() {
            if backward.wants(i) {
                let inputs = [operands[0], operands[1], scale, dloss];
                backward.give(i, GRADIENT, &inputs)?;
            }
        }
        Ok(())
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 3.0 * io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn workspace(&self, io: &Io) -> usize {
        io.inputs[0].leading() * size_of::<f64>()
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        of_rows(io, "mean_squared_error", &[])
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run);
        Ok(())
    }
}
