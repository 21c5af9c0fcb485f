//! `activation`: an elementwise function. `x f[..] -> f[..]`, same shape and dtype.
//!
//! `gelu` is `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`, `gelu_erf` is `x Φ(x)` (Hendrycks and
//! Gimpel, arXiv:1606.08415), `silu` is `x σ(x)`. Gradient: `dx = dy f'(x)`, overwrites; backward
//! reads x, not y. Elements beyond the live extent are neither read nor written.

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::fusible::Fusible;
use crate::ops::gradient_op::GradientOp;
use crate::ops::shapes::{Shapes, operands};
use crate::ops::{Class, Io, Op};
use crate::shape::Spec;

pub(crate) mod cpu;
mod cuda;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// FLOPs of an element, roughly.
pub(crate) const FLOPS: f64 = 20.0;

/// Which function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// GELU with tanh (GPT-2).
    Gelu,
    /// GELU with the error function.
    GeluErf,
    /// SiLU.
    Silu,
}

/// GELU, tanh approximation.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `x` is a float.
pub fn gelu(g: &mut Graph<'_>, x: Tensor) -> Result<Tensor> {
    g.apply_one(Activation::Gelu, &[x])
}

/// GELU with the error function.
///
/// # Errors
/// As [`gelu`].
pub fn gelu_erf(g: &mut Graph<'_>, x: Tensor) -> Result<Tensor> {
    g.apply_one(Activation::GeluErf, &[x])
}

/// SiLU.
///
/// # Errors
/// As [`gelu`].
pub fn silu(g: &mut Graph<'_>, x: Tensor) -> Result<Tensor> {
    g.apply_one(Activation::Silu, &[x])
}

impl Op for Activation {
    fn name(&self) -> &'static str {
        match self {
            Self::Gelu => "gelu",
            Self::GeluErf => "gelu_erf",
            Self::Silu => "silu",
        }
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x] = operands(inputs)?;
        if !x.dtype.widens_to_f32() {
            return Err(format!("x is {x}, not a float"));
        }
        Ok(vec![x.clone()])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let (dy, x) = (backward.need(0)?, backward.input(0)?);
        let name = match self {
            Self::Gelu => "gelu_gradient",
            Self::GeluErf => "gelu_erf_gradient",
            Self::Silu => "silu_gradient",
        };
        // `dx` from `dy, x`.
        let rule = GradientOp {
            accumulates: false,
            cuda: |function: &Self, io| cuda::of(io, &format!("{}_gradient", function.name())),
            flops: |_, io| 25.0 * io.inputs[0].elements() as f64,
            ..GradientOp::new(name, *self, |run, &function| cpu::gradient(run, function))
        };
        backward.give(0, rule, &[dy, x])
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: FLOPS * io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn class(&self) -> Class {
        Class::Activation
    }

    fn fusible(&self) -> Option<Fusible> {
        Some(Fusible::Activation(*self))
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::of(io, self.name())
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run, *self);
        Ok(())
    }
}
