//! A product whose store applies the function behind it. Same bits as one op after the other.
//!
//! If nobody else reads what the function reads, that takes no memory. Where backward needs it too,
//! a GPU stores both; on the CPU two passes are faster, as they are for gradients of functions
//! (`docs/speed.md`).

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::Cost;
use crate::graph::target::Gpu;
use crate::launch::Launches;
use crate::ops::activation::{self, Activation};
use crate::ops::linear::{Linear, cpu, cuda, product_cost};
use crate::ops::shapes::Shapes;
use crate::ops::{Io, Op};
use crate::shape::Spec;

/// `y = f(x wᵀ + b)`, operands as of `linear`; then the argument of f, if it `keeps` that.
#[derive(Debug)]
pub(super) struct Activated {
    pub(super) function: Activation,
    pub(super) keeps: bool,
}

impl Op for Activated {
    fn name(&self) -> &'static str {
        match self.function {
            Activation::Gelu => "linear+gelu",
            Activation::GeluErf => "linear+gelu_erf",
            Activation::Silu => "linear+silu",
        }
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let y = Linear::default().outputs(inputs)?;
        Ok(y.iter().cycle().take(1 + usize::from(self.keeps)).cloned().collect())
    }

    fn cost(&self, io: &Io) -> Cost {
        let function = activation::FLOPS * io.outputs[0].elements() as f64;
        product_cost(io) + Cost { flops: function, bytes: 0.0 }
    }

    fn reads_stored(&self, i: usize) -> bool {
        Linear::default().reads_stored(i)
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io, Some(self.function), self.keeps)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::activated(run, self);
        Ok(())
    }
}
