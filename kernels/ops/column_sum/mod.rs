//! `column_sum`: the gradient of a bias. `dy f[N, D] -> f32[D]`, the sum of the live rows in fixed
//! blocks; overwrites or accumulates. Has no gradient of its own.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::Cost;
use crate::ops::shapes::{Shapes, matrix, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

pub(crate) mod cpu;
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
        cpu::forward(run);
        Ok(())
    }
}
