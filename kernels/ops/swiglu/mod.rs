//! `swiglu`: a gated activation (Shazeer, arXiv:2002.05202). `x f[N, 2F] -> y f[N, F]`, of x's
//! dtype: `y = silu(first half of x) * second half of x`.
//!
//! Gradient: `dx f[N, 2F]`, overwrites; backward reads x, not y. Dead rows are left untouched.

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::gradient_op::GradientOp;
use crate::ops::shapes::{Shapes, matrix, operands};
use crate::ops::{Class, Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

/// The gated activation.
#[derive(Debug)]
pub struct SwiGlu;

/// `dx f[N, 2F]` from `dy f[N, F], x f[N, 2F]`.
const GRADIENT: GradientOp = GradientOp {
    outputs: |(), of| vec![of[0].clone().with_columns(of[1].columns())],
    accumulates: false,
    flops: |(), io| 24.0 * io.inputs[0].elements() as f64,
    cuda: |(), io| cuda::gradient(io),
    ..GradientOp::new("swiglu_gradient", (), |run, ()| cpu::gradient(run))
};

/// `silu(gate) * up`, where a row of `gate_up` is the gate and then the rest.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless it is a float matrix with an even number of columns.
pub fn swiglu(g: &mut Graph<'_>, gate_up: Tensor) -> Result<Tensor> {
    g.apply_one(SwiGlu, &[gate_up])
}

/// Rows of `x`, and half its columns.
fn halves(x: &Spec) -> std::result::Result<[usize; 2], String> {
    let [rows, columns] = matrix(x, "x")?;
    if columns % 2 != 0 {
        return Err(format!("x is {x}: its columns have no halves"));
    }
    Ok([rows, columns / 2])
}

impl Op for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x] = operands(inputs)?;
        let [_, half] = halves(x)?;
        Ok(vec![x.clone().with_columns(half)])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let (dy, x) = (backward.need(0)?, backward.input(0)?);
        backward.give(0, GRADIENT, &[dy, x])
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 16.0 * io.outputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn class(&self) -> Class {
        Class::Activation
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run);
        Ok(())
    }
}
