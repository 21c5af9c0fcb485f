//! What an op is. Each op is a folder that holds everything about it: contract and gradient
//! (`mod.rs`), CPU run (`cpu.rs`), what it asks of a GPU (`cuda.rs`), f64 oracle and tests. The CPU
//! run is the specification.
//!
//! An op never allocates, never keeps state between runs and never looks beyond a live extent.

use std::fmt::Debug;
use std::sync::Arc;

use crate::cpu::CpuRun;
use crate::error::{Error, Result};
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Target};
use crate::launch::Launches;
use crate::ops::fusible::Fusible;
use crate::shape::Spec;

pub mod activation;
pub mod adamw;
pub mod add;
pub mod attention;
pub mod attention_cached;
pub mod binary_cross_entropy;
pub mod cast;
pub mod column_sum;
pub mod combine;
pub mod compact;
pub mod concat_columns;
pub mod contrastive_loss;
pub mod copy;
pub mod cross_entropy;
pub mod dispatch;
pub mod dropout;
pub mod embedding;
pub mod exponential_average;
pub mod fill;
pub mod fold;
pub mod fusible;
pub mod gather_rows;
pub mod global_norm;
pub mod gradient_op;
pub mod group_by_expert;
pub mod grouped_linear;
pub mod head_norm;
pub mod integers;
pub mod kl_divergence;
pub mod l2_normalize;
pub mod layer_norm;
pub mod linear;
pub mod linear_cross_entropy;
pub mod lion;
pub mod load_balance_loss;
mod loss;
pub mod mean_pool;
pub mod mean_squared_error;
pub mod multiply;
pub mod quantize;
pub mod rms_norm;
pub mod rope;
pub mod route;
pub mod sample;
pub mod scale;
pub mod scatter_rows;
pub(crate) mod shapes;
pub mod slice_columns;
pub mod swiglu;
pub mod tanh;
pub mod update_bias;

#[cfg(test)]
mod tests;

/// The operands of an op, for its cost and workspace.
#[derive(Debug, Clone)]
pub struct Io {
    /// Inputs in order.
    pub inputs: Vec<Spec>,
    /// Outputs in order.
    pub outputs: Vec<Spec>,
}

impl Io {
    /// Bytes of all operands, each touched once: the floor of what an op moves.
    pub fn bytes(&self) -> usize {
        self.inputs.iter().chain(&self.outputs).map(Spec::bytes).sum()
    }
}

/// What a recompute policy may call an op, besides the region it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Cheap against the memory of its output: a norm.
    Norm,
    /// Likewise: an activation function.
    Activation,
    /// Anything else.
    Other,
}

/// The stream on which a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// In order with all other compute.
    Compute,
    /// Beside it: collectives inside a graph. Operands stay untouched until a compute node waits.
    Communication,
    /// Beside both: copies from host memory. No node runs there.
    CopyIn,
    /// Beside all: copies to host memory. What goes out holds up nothing that comes in.
    CopyOut,
}

/// An operation on tensors.
pub trait Op: Debug + Send + Sync {
    /// Its name in profiles and errors.
    fn name(&self) -> &'static str;

    /// Shapes and dtypes of the outputs.
    ///
    /// # Errors
    /// A sentence that says what was expected and what was given.
    fn outputs(&self, inputs: &[&Spec]) -> std::result::Result<Vec<Spec>, String>;

    /// Emits the ops that compute the gradients which `backward` wants.
    ///
    /// # Errors
    /// [`Error::NoGradient`] unless overridden.
    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        Err(Error::NoGradient { op: self.name(), path: backward.path().to_string() })
    }

    /// False when nothing ever flows back: comparisons, indices, random draws.
    fn differentiable(&self) -> bool {
        true
    }

    /// Whether the op can add to its outputs instead of overwriting them.
    fn accumulates(&self) -> bool {
        false
    }

    /// FLOPs and bytes moved.
    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 0.0, bytes: io.bytes() as f64 }
    }

    /// Bytes of scratch in the arena while the op runs on the CPU.
    fn workspace(&self, _io: &Io) -> usize {
        0
    }

    /// Whether the CPU run takes input `i` as it is stored ([`CpuRun::floats`]), so that a bf16 one
    /// need not stand widened beside it.
    fn reads_stored(&self, _i: usize) -> bool {
        false
    }

    /// What it asks of a GPU of that kind; its scratch there is theirs. `None`: nothing yet, and a
    /// program that holds the op cannot run there.
    fn cuda(&self, _io: &Io, _gpu: &Gpu) -> Option<Launches> {
        None
    }

    /// For recompute policies.
    fn class(&self) -> Class {
        Class::Other
    }

    /// What it does to its first input, if whoever makes that input could do it in the same pass.
    fn fusible(&self) -> Option<Fusible> {
        None
    }

    /// This op, which has one output, and `next` on that output, in one pass that gives the same
    /// bits.
    ///
    /// Inputs are those of this op, then those of the next but its first. Outputs are those of the
    /// next, then this op's own if it `keeps` it. `None` if there is no such pass, or if two passes
    /// are faster on that target.
    fn fused_with(&self, _: Fusible, _keeps: bool, _: Target) -> Option<Arc<dyn Op>> {
        None
    }

    /// Where it runs.
    fn stream(&self) -> Stream {
        Stream::Compute
    }

    /// Runs it on the CPU.
    ///
    /// # Errors
    /// [`Error::Collective`] from an op that meets other devices; others do not fail.
    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()>;
}
