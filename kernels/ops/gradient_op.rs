//! Ops that only backward makes.
//!
//! Their operands come from a node whose shapes were checked, so all that there is to say of one is
//! what it makes, what that costs and who runs it; nothing flows back through it.

use std::fmt::Debug;

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::Cost;
use crate::graph::target::Gpu;
use crate::launch::Launches;
use crate::ops::shapes::Shapes;
use crate::ops::{Io, Op};
use crate::shape::Spec;

/// A term of the gradient of an input, or of several at once.
#[derive(Debug, Clone, Copy)]
pub struct GradientOp<S = ()> {
    /// In profiles and plans.
    pub name: &'static str,
    /// What of the forward op's settings it needs.
    pub of: S,
    /// Specs of the outputs from those of the operands; that of the first operand unless said.
    pub outputs: fn(&S, &[&Spec]) -> Vec<Spec>,
    /// Whether it can add to its outputs; true unless said.
    pub accumulates: bool,
    /// FLOPs; one for each element of the first operand unless said.
    pub flops: fn(&S, &Io) -> f64,
    /// Bytes of scratch on the CPU; none unless said.
    pub workspace: fn(&S, &Io) -> usize,
    /// The inputs that the CPU run takes as they are stored; none unless said.
    pub stored: &'static [usize],
    /// The run on the CPU.
    pub cpu: fn(&CpuRun<'_>, &S),
    /// What it asks of a GPU; nothing yet unless said.
    pub cuda: fn(&S, &Io) -> Option<Launches>,
}

impl<S> GradientOp<S> {
    /// The gradient with everything that is not said.
    pub const fn new(name: &'static str, of: S, cpu: fn(&CpuRun<'_>, &S)) -> Self {
        Self {
            name,
            of,
            outputs: |_, operands| vec![operands[0].clone()],
            accumulates: true,
            flops: |_, io| io.inputs[0].elements() as f64,
            workspace: |_, _| 0,
            stored: &[],
            cpu,
            cuda: |_, _| None,
        }
    }
}

impl<S: Debug + Send + Sync> Op for GradientOp<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        Ok((self.outputs)(&self.of, inputs))
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn accumulates(&self) -> bool {
        self.accumulates
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: (self.flops)(&self.of, io), bytes: io.bytes() as f64 }
    }

    fn workspace(&self, io: &Io) -> usize {
        (self.workspace)(&self.of, io)
    }

    fn reads_stored(&self, i: usize) -> bool {
        self.stored.contains(&i)
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        (self.cuda)(&self.of, io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        (self.cpu)(run, &self.of);
        Ok(())
    }
}
