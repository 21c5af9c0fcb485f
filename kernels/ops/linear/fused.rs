//! A product whose store applies the function behind it, if nobody else reads what that reads: the
//! product's own result takes no memory. Same bits as one op after the other.
//!
//! Where backward needs the product too, and for gradients of functions, two passes are faster on
//! the CPU (`docs/speed.md`).

use crate::cpu::CpuRun;
use crate::cpu::gemm::Block;
use crate::error::Result;
use crate::graph::Cost;
use crate::ops::activation::{self, Activation};
use crate::ops::linear::{Linear, cpu, product_cost};
use crate::ops::rows::Shapes;
use crate::ops::{Io, Op};
use crate::shape::Spec;

/// Elements of a row that are changed at a time.
const PIECE: usize = 256;

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
        let isa = run.device().isa;
        cpu::product(run, &|mut block: Block<'_>| {
            let mut z = [0.0; PIECE];
            for row in 0..block.rows() {
                for y in block.row(row).chunks_mut(PIECE) {
                    let z = &mut z[..y.len()];
                    z.copy_from_slice(y);
                    activation::cpu::value(isa, self.0, z, y);
                }
            }
        });
        Ok(())
    }
}
