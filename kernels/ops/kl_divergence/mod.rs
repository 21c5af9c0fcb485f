//! `kl_divergence`: a student's distribution against its teacher's.
//! `student f[N, V], teacher f[N, V], scale f32[] -> loss f32[], loss_sum f32[]`; both are logits.
//!
//! The term of a row is `T² · KL(softmax(teacher / T) ‖ softmax(student / T))` with the temperature
//! T; the factor keeps gradients comparable over temperatures (Hinton et al., arXiv:1503.02531).
//! `loss_sum` adds the terms in f64 in row order, `loss` is `scale` times it. A class that the
//! teacher forbids (minus infinity) adds nothing. Gradient of the student: `scale · T (p_student -
//! p_teacher)`; overwrites or accumulates. Nothing flows to the teacher. Rows beyond the live
//! extent are neither read nor written.

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::{Argument, Launches};
use crate::ops::gradient_op::GradientOp;
use crate::ops::loss::{apply_loss, expect_scalar, gradient_of_rows, loss_specs, of_rows};
use crate::ops::shapes::{Shapes, expect_float, matrix, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// The loss.
#[derive(Debug)]
pub struct KlDivergence {
    /// Above 0.
    pub temperature: f32,
}

/// Loss and its unscaled sum over rows. Nothing flows back through the sum, to the teacher or to
/// the scale.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless both logits are float matrices of one shape, the scale one
/// `f32` and the temperature above 0.
pub fn kl_divergence(
    g: &mut Graph<'_>,
    student: Tensor,
    teacher: Tensor,
    temperature: f32,
    scale: Tensor,
) -> Result<(Tensor, Tensor)> {
    let teacher = g.stop_gradient(teacher);
    let outputs = apply_loss(g, KlDivergence { temperature }, &[student, teacher, scale])?;
    Ok((outputs[0], outputs[1]))
}

fn check(student: &Spec, teacher: &Spec, scale: &Spec) -> std::result::Result<(), String> {
    let shape = matrix(student, "the student's logits")?;
    expect_float(teacher, &shape, "the teacher's logits")?;
    expect_scalar(scale, "the scale")
}

impl Op for KlDivergence {
    fn name(&self) -> &'static str {
        "kl_divergence"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [student, teacher, scale] = operands(inputs)?;
        check(student, teacher, scale)?;
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return Err(format!("temperature {}", self.temperature));
        }
        Ok(loss_specs().to_vec())
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let Some(dloss) = backward.gradient(0) else { return Ok(()) };
        let inputs = [backward.input(0)?, backward.input(1)?, backward.input(2)?, dloss];
        let rule = GradientOp {
            outputs: |_, of| vec![of[0].clone().with_live(of[0].live.or(of[1].live))],
            flops: |_, io| 12.0 * io.inputs[0].elements() as f64,
            cuda: |&temperature, io| {
                gradient_of_rows(io, "kl_divergence", &[Argument::F32(temperature)])
            },
            ..GradientOp::new("kl_divergence_gradient", self.temperature, |run, &temperature| {
                cpu::gradient(run, temperature);
            })
        };
        backward.give(0, rule, &inputs)
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 10.0 * io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn workspace(&self, io: &Io) -> usize {
        io.inputs[0].leading() * size_of::<f64>()
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        of_rows(io, "kl_divergence", &[Argument::F32(self.temperature)])
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run, self.temperature);
        Ok(())
    }
}
