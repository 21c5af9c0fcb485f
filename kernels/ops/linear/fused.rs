//! A product whose store applies the function behind it, if nobody else reads what that reads: the
//! product's own result takes no memory. Same bits as one op after the other.
//!
//! Where backward needs the product too, and for gradients of functions, two passes are faster on
//! the CPU (`docs/speed.md`).

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::Cost;
use crate::ops::activation::{self, Activation};
use crate::ops::linear::{Linear, cpu, product_cost};
use crate::ops::shapes::Shapes;
use crate::ops::{Io, Op};
use crate::shape::Spec;

/// `y = f(x wᵀ + b)`, operands as of `linear`.
#[derive(Debug)]
pub(super) struct Activated(pub(super) Activation);

impl Op for Activated {
    fn name(&self) -> &'static str {
        match self.0 {
            Activation::Gelu => "linear+gelu",
            Activation::GeluErf => "linear+gelu_erf",
            Activation::Silu => "linear+silu",
        }
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        Linear.outputs(inputs)
    }

    fn cost(&self, io: &Io) -> Cost {
        let function = activation::FLOPS * io.outputs[0].elements() as f64;
        product_cost(io) + Cost { flops: function, bytes: 0.0 }
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::activated(run, self.0);
        Ok(())
    }
}
