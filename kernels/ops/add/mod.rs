//! `add`: the elementwise sum of two tensors of one shape. `f32[..], f32[..] -> f32[..]`. A norm of
//! the sum's rows can be part of the same pass (`fused`).

use std::sync::Arc;

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Target, Tensor};
use crate::launch::Launches;
use crate::ops::fusible::Fusible;
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
mod fused;
#[cfg(test)]
mod tests;

/// `a + b`.
#[derive(Debug)]
pub struct Add;

/// `a + b`, both of one shape and dtype.
///
/// # Errors
/// [`crate::error::Error::Shape`] when they differ.
pub fn add(g: &mut Graph<'_>, a: Tensor, b: Tensor) -> Result<Tensor> {
    g.apply_one(Add, &[a, b])
}

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn outputs(&self, inputs: &[&Spec]) -> std::result::Result<Vec<Spec>, String> {
        let [a, b] = inputs else { return Err(format!("{} operands, not 2", inputs.len())) };
        if a.shape != b.shape || a.dtype != b.dtype || !a.dtype.widens_to_f32() {
            return Err(format!("{a} + {b}"));
        }
        if a.live.is_some() && b.live.is_some() && a.live != b.live {
            return Err(format!("{a} + {b} are live up to different extents"));
        }
        Ok(vec![(*a).clone().with_live(a.live.or(b.live))])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let gradient = backward.need(0)?;
        for i in 0..2 {
            if backward.wants(i) {
                backward.pass(i, gradient)?;
            }
        }
        Ok(())
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.outputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn fused_with(&self, next: Fusible, keeps: bool, _: Target) -> Option<Arc<dyn Op>> {
        match next {
            // Without the sum there is no residual stream to save a pass over.
            _ if !keeps => None,
            Fusible::LayerNorm { eps } => Some(Arc::new(fused::AddLayerNorm { eps })),
            Fusible::RmsNorm { eps } => Some(Arc::new(fused::AddRmsNorm { eps })),
            _ => None,
        }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run);
        Ok(())
    }
}
