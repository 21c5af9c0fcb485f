//! `sample`: one categorical draw per row.
//! `logits f[M, V], sample_of_row i32[M], element_of_row i32[M] -> i32[M]`. No gradient.
//!
//! Class v is drawn with probability softmax(logits / temperature)[v]; at temperature 0 it is the
//! first of the largest logits. Gumbel-max in the form of a race: class v arrives at time E[v] ·
//! e^((max - x[v]) / temperature), E exponential, and the first one wins (ties: the lowest class).
//! E[v] is drawn by Philox at (step, first sample + `sample_of_row`, element `element_of_row` ·
//! ceil4(V) + v), so a draw depends neither on the rank nor on where the row lies. E = -log(1 - u)
//! with u = (word + 1/2) / 2^32, in f32. A class at minus infinity is never drawn; a row without a
//! finite logit, or with NaN in it, gives some class below V. Rows beyond the live extent of any
//! operand are neither read nor written.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::shapes::{Shapes, expect_i32, matrix, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// Draws.
#[derive(Debug)]
pub struct Sample {
    /// Above 0, or 0 for the largest.
    pub temperature: f32,
}

/// A class for every row of `logits`. `sample_of_row` counts from the micro-batch's first sample;
/// with `element_of_row`, the position in the sample, it names the draw.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless logits are `f[M, V]`, the others `i32[M]`, and the
/// temperature is finite and not negative.
pub fn sample(
    g: &mut Graph<'_>,
    logits: Tensor,
    sample_of_row: Tensor,
    element_of_row: Tensor,
    temperature: f32,
) -> Result<Tensor> {
    g.apply_one(Sample { temperature }, &[logits, sample_of_row, element_of_row])
}

impl Op for Sample {
    fn name(&self) -> &'static str {
        "sample"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [logits, samples, elements] = operands(inputs)?;
        let [rows, classes] = matrix(logits, "logits")?;
        expect_i32(samples, &[rows], "sample_of_row")?;
        expect_i32(elements, &[rows], "element_of_row")?;
        if classes == 0 || !(0.0..f32::INFINITY).contains(&self.temperature) {
            return Err(format!("{classes} classes at temperature {}", self.temperature));
        }
        let live = logits.live.or(samples.live).or(elements.live);
        Ok(vec![Spec::new(&[rows], DType::I32).with_live(live)])
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 40.0 * io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::launches(io, self.temperature)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::draw(run, self.temperature);
        Ok(())
    }
}
