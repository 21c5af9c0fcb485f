//! `l2_normalize`: rows of length 1. `x f[N, D] -> f[N, D]`, of x's dtype.
//!
//! `y = x / max(‖x‖, eps)`, the norm summed in f64. Gradient: `(dy - y (y · dy)) / ‖x‖`, or `dy /
//! eps` for a row shorter than eps; overwrites or accumulates. Rows beyond the live extent are
//! neither read nor written.

use crate::cpu::{CpuRun, vector};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::ops::rows::{Shapes, expect_float, map_rows, matrix, operands};
use crate::ops::{Class, Io, Op};
use crate::shape::Spec;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// Normalises rows. Its second output, `f32[N]`, holds their norms, at least eps.
#[derive(Debug)]
pub struct L2Normalize {
    /// The shortest row that becomes 1 long; above 0.
    pub eps: f32,
}

/// Its gradient: `dy f[N, D], x f[N, D], norm f32[N] -> f[N, D]`.
#[derive(Debug)]
pub struct L2NormalizeGradient {
    /// As in [`L2Normalize`].
    pub eps: f32,
}

/// Every row of `x` divided by its length, or by `eps` if that is larger.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `x` is a float matrix and `eps` above 0.
pub fn l2_normalize(g: &mut Graph<'_>, x: Tensor, eps: f32) -> Result<Tensor> {
    Ok(g.apply(L2Normalize { eps }, &[x])?[0])
}

impl Op for L2Normalize {
    fn name(&self) -> &'static str {
        "l2_normalize"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x] = operands(inputs)?;
        let [rows, _] = matrix(x, "x")?;
        if self.eps.is_nan() || self.eps <= 0.0 {
            return Err(format!("eps is {}", self.eps));
        }
        Ok(vec![x.clone(), Spec::new(&[rows], DType::F32).with_live(x.live)])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let Some(dy) = backward.gradient(0) else { return Ok(()) };
        let inputs = [dy, backward.input(0)?, backward.output(1)?];
        backward.give(0, L2NormalizeGradient { eps: self.eps }, &inputs)
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 3.0 * io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn class(&self) -> Class {
        Class::Norm
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        let (x, columns, device) = (run.input::<f32>(0), run.input_spec(0).columns(), run.device());
        let outputs = [(run.output::<f32>(0), columns), (run.output::<f32>(1), 1)];
        map_rows(&device.pool, run.live_input(0), columns, outputs, |rows, [y, norms]| {
            for ((row, y), norm) in rows.zip(y.chunks_exact_mut(columns)).zip(norms) {
                let x = &x[row * columns..][..columns];
                let length = vector::sum_of_squares_f64(device.isa, x).sqrt() as f32;
                *norm = if length < self.eps { self.eps } else { length };
                y.iter_mut().zip(x).for_each(|(y, x)| *y = x / *norm);
            }
        });
        Ok(())
    }
}

impl Op for L2NormalizeGradient {
    fn name(&self) -> &'static str {
        "l2_normalize_gradient"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [dy, x, norm] = operands(inputs)?;
        let shape = matrix(x, "x")?;
        expect_float(dy, &shape, "the gradient")?;
        expect_float(norm, &shape[..1], "the norms")?;
        Ok(vec![x.clone()])
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 5.0 * io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        let (dy, x, norms) = (run.input::<f32>(0), run.input::<f32>(1), run.input::<f32>(2));
        let (columns, device) = (run.input_spec(1).columns(), run.device());
        let (dx, accumulate) = (run.output::<f32>(0), run.accumulate(0));
        map_rows(&device.pool, run.live_input(1), columns, [(dx, columns)], |rows, [dx]| {
            for (row, dx) in rows.zip(dx.chunks_exact_mut(columns)) {
                let (dy, x) = (&dy[row * columns..][..columns], &x[row * columns..][..columns]);
                let (norm, inner) = (norms[row], vector::dot_f64(device.isa, dy, x));
                let along =
                    if norm > self.eps { (inner / f64::from(norm).powi(2)) as f32 } else { 0.0 };
                for (dx, (dy, x)) in dx.iter_mut().zip(dy.iter().zip(x)) {
                    let term = (dy - along * x) / norm;
                    *dx = if accumulate { *dx + term } else { term };
                }
            }
        });
        Ok(())
    }
}
