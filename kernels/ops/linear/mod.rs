//! `linear`: `y = x wᵀ + b`. `x f[N, I], w f[O, I], b f[O]? -> y f[N, O]`, of x's dtype.
//!
//! Gradients: `dx = dy w` overwrites or accumulates; `dw = dyᵀ x` and `db = Σ dy` over the live
//! rows are `f32` and overwrite or accumulate. Every element is one sum in ascending order of its
//! inner index (`cpu::gemm` says where it is cut). Dead rows are neither read nor written.

use crate::cpu::CpuRun;
use crate::cpu::gemm::{Matrix, Output, Size, gemm_with};
use crate::cpu::vector;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::ops::column_sum::ColumnSum;
use crate::ops::rows::{Shapes, expect_float, matrix, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// A matrix product with a weight, and perhaps a bias.
#[derive(Debug)]
pub struct Linear;

/// `dx f[N, I]` from `dy f[N, O], w f[O, I]`.
#[derive(Debug)]
pub struct LinearInputGradient;

/// `dw f32[O, I]` from `dy f[N, O], x f[N, I]`.
#[derive(Debug)]
pub struct LinearWeightGradient;

/// `x wᵀ`, plus `bias` if there is one.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `x` and `w` are float matrices with rows of one length and
/// `bias` has an element per row of `w`.
pub fn linear(g: &mut Graph<'_>, x: Tensor, w: Tensor, bias: Option<Tensor>) -> Result<Tensor> {
    match bias {
        Some(bias) => g.apply_one(Linear, &[x, w, bias]),
        None => g.apply_one(Linear, &[x, w]),
    }
}

/// FLOPs and bytes of a product of `m x k` and `k x n`.
fn product_cost(m: usize, n: usize, k: usize, io: &Io) -> Cost {
    Cost { flops: 2.0 * m as f64 * n as f64 * k as f64, bytes: io.bytes() as f64 }
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x, w] = operands(&inputs[..inputs.len().min(2)])?;
        let ([_, columns], [out, inner]) = (matrix(x, "x")?, matrix(w, "the weight")?);
        if columns != inner {
            return Err(format!("x is {x}, the weight {w}: rows of different lengths"));
        }
        match inputs[2..] {
            [] => {}
            [bias] => expect_float(bias, &[out], "the bias")?,
            _ => return Err(format!("{} operands, not 2 or 3", inputs.len())),
        }
        Ok(vec![x.clone().with_columns(out)])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let dy = backward.need(0)?;
        if backward.wants(0) {
            let w = backward.input(1)?;
            backward.give(0, LinearInputGradient, &[dy, w])?;
        }
        if backward.wants(1) {
            let x = backward.input(0)?;
            backward.give(1, LinearWeightGradient, &[dy, x])?;
        }
        if backward.inputs() > 2 && backward.wants(2) {
            backward.give(2, ColumnSum, &[dy])?;
        }
        Ok(())
    }

    fn cost(&self, io: &Io) -> Cost {
        product_cost(io.inputs[0].leading(), io.inputs[1].leading(), io.inputs[1].columns(), io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        let [n, k] = [run.input_spec(1).leading(), run.input_spec(1).columns()];
        let (x, w) = (run.input::<f32>(0), run.input::<f32>(1));
        let bias = (run.inputs() > 2).then(|| run.input::<f32>(2));
        let (device, size) = (run.device(), Size { m: run.live_input(0), n, k });
        let y = Output::new(run.output::<f32>(0), n, false);
        let (a, b) = (Matrix::rows(x, k), Matrix::transposed(w, k));
        gemm_with(&device.pool, &device.scratch, size, a, b, y, &|mut block| {
            let Some(bias) = bias else { return };
            for row in 0..block.rows() {
                let first = block.first_column;
                let y = block.row(row);
                vector::add_scaled(device.isa, y, 1.0, &bias[first..first + y.len()]);
            }
        });
        Ok(())
    }
}

impl Op for LinearInputGradient {
    fn name(&self) -> &'static str {
        "linear_input_gradient"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [dy, w] = operands(inputs)?;
        let ([_, out], [rows, columns]) = (matrix(dy, "the gradient")?, matrix(w, "the weight")?);
        if out != rows {
            return Err(format!("the gradient is {dy}, the weight {w}"));
        }
        Ok(vec![dy.clone().with_columns(columns)])
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn cost(&self, io: &Io) -> Cost {
        product_cost(io.inputs[0].leading(), io.inputs[1].columns(), io.inputs[1].leading(), io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        let [k, n] = [run.input_spec(1).leading(), run.input_spec(1).columns()];
        let (dy, w) = (run.input::<f32>(0), run.input::<f32>(1));
        let dx = Output::new(run.output::<f32>(0), n, run.accumulate(0));
        let size = Size { m: run.live_input(0), n, k };
        run.device().gemm(size, Matrix::rows(dy, k), Matrix::rows(w, n), dx);
        Ok(())
    }
}

impl Op for LinearWeightGradient {
    fn name(&self) -> &'static str {
        "linear_weight_gradient"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [dy, x] = operands(inputs)?;
        let ([rows, out], [n, columns]) = (matrix(dy, "the gradient")?, matrix(x, "x")?);
        if rows != n {
            return Err(format!("the gradient is {dy}, x is {x}"));
        }
        Ok(vec![Spec::new(&[out, columns], DType::F32)])
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn cost(&self, io: &Io) -> Cost {
        product_cost(io.inputs[0].columns(), io.inputs[1].columns(), io.inputs[0].leading(), io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        let [m, n] = [run.input_spec(0).columns(), run.input_spec(1).columns()];
        let (dy, x) = (run.input::<f32>(0), run.input::<f32>(1));
        let dw = Output::new(run.output::<f32>(0), n, run.accumulate(0));
        let size = Size { m, n, k: run.live_input(0) };
        run.device().gemm(size, Matrix::transposed(dy, m), Matrix::rows(x, n), dw);
        Ok(())
    }
}
