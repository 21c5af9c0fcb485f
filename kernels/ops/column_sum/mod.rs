//! `column_sum`: the gradient of a bias. `dy f[N, D] -> f32[D]`, the sum of the live rows in fixed
//! blocks; overwrites or accumulates. Has no gradient of its own.

use crate::cpu::isa::dispatch;
use crate::cpu::{CpuDevice, CpuRun};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::Cost;
use crate::ops::rows::{Shapes, column_sums, matrix, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

#[cfg(test)]
mod tests;

/// Sums rows.
#[derive(Debug)]
pub struct ColumnSum;

impl Op for ColumnSum {
    fn name(&self) -> &'static str {
        "column_sum"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [dy] = operands(inputs)?;
        let [_, columns] = matrix(dy, "the gradient")?;
        Ok(vec![Spec::new(&[columns], DType::F32)])
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        let (dy, out) = (run.input::<f32>(0), run.output::<f32>(0));
        add_column_sums(run.device(), dy, run.live_input(0), out, run.accumulate(0));
        Ok(())
    }
}

/// Column sums of the first `rows` rows of `dy`, which are as long as `out`.
pub(crate) fn add_column_sums(
    device: &CpuDevice,
    dy: &[f32],
    rows: usize,
    out: &mut [f32],
    accumulate: bool,
) {
    let stride = out.len();
    column_sums(&device.pool, rows, out, accumulate, |rows, columns, partial| {
        let from = rows.start * stride + columns.start;
        add_rows(device.isa, &dy[from..], rows.len(), stride, partial);
    });
}

dispatch! {
    /// Adds `rows` rows that are `stride` apart to `partial`.
    fn add_rows(dy: &[f32], rows: usize, stride: usize, partial: &mut [f32]) {
        let columns = partial.len();
        for row in 0..rows {
            let dy = &dy[row * stride..][..columns];
            partial.iter_mut().zip(dy).for_each(|(p, dy)| *p += dy);
        }
    }
}
