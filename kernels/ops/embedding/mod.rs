//! `embedding`: rows of a table. `tokens i32[N], table f[V, D] -> f[N, D]`, of the table's dtype.
//!
//! A token outside `0..V` gives a row of NaN, which no loss can hide; its gradient is dropped.
//! Gradient of the table: `f32[V, D]`, the sum of the output gradients of each token in row order;
//! overwrites the whole table or accumulates. Rows beyond the live extent of `tokens` are neither
//! read nor written. Learned positions are an embedding of position numbers.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::gradient_op::GradientOp;
use crate::ops::shapes::{Shapes, expect_i32, matrix, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// Looks up rows.
#[derive(Debug)]
pub struct Embedding;

/// Row `tokens[n]` of `table` for every n.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `tokens` is `i32[N]` and `table` a float matrix.
pub fn embedding(g: &mut Graph<'_>, tokens: Tensor, table: Tensor) -> Result<Tensor> {
    g.apply_one(Embedding, &[tokens, table])
}

impl Op for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [tokens, table] = operands(inputs)?;
        let [_, columns] = matrix(table, "the table")?;
        expect_i32(tokens, &[tokens.leading()], "tokens")?;
        Ok(vec![Spec::new(&[tokens.leading(), columns], table.dtype).with_live(tokens.live)])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let (dy, tokens) = (backward.need(0)?, backward.input(0)?);
        let rows = backward.input_spec(1).leading();
        // `tokens i32[N], dy f[N, D] -> f32[V, D]`.
        let rule = GradientOp {
            outputs: |&rows, of| vec![Spec::new(&[rows, of[1].columns()], DType::F32)],
            flops: |_, io| io.inputs[1].elements() as f64,
            cuda: |_, io| cuda::gradient(io),
            ..GradientOp::new("embedding_gradient", rows, |run, _| cpu::gradient(run))
        };
        backward.give(1, rule, &[tokens, dy])
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 0.0, bytes: (io.inputs[0].bytes() + 2 * io.outputs[0].bytes()) as f64 }
    }

    fn reads_stored(&self, i: usize) -> bool {
        i == 1
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run);
        Ok(())
    }
}
