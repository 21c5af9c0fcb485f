//! `column_sum`: the gradient of a bias. `dy f[N, D] -> f32[D]`, the sum of the live rows in fixed
//! blocks; overwrites or accumulates. Has no gradient of its own.

use crate::dtype::DType;
use crate::ops::gradient_op::GradientOp;
use crate::shape::Spec;

pub(crate) mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

/// Sums rows.
pub const COLUMN_SUM: GradientOp = GradientOp {
    outputs: |(), of| vec![Spec::new(&[of[0].columns()], DType::F32)],
    cuda: |(), io| cuda::forward(io),
    ..GradientOp::new("column_sum", (), |run, ()| cpu::forward(run))
};
