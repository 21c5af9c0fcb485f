//! A sum and a norm of its rows in one pass: the residual stream is read and written once. Same
//! bits as one op after the other: the norm sees the sum as it is stored.

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::Cost;
use crate::graph::target::Gpu;
use crate::launch::Launches;
use crate::ops::add::{Add, cpu};
use crate::ops::layer_norm::{self, LayerNorm};
use crate::ops::rms_norm::{self, RmsNorm};
use crate::ops::shapes::Shapes;
use crate::ops::{Io, Op};
use crate::shape::Spec;

/// `y f[N, D], mean f32[N], rstd f32[N], s f[N, D]` from `a f[N, D], b f[N, D], w f[D], c f[D]`:
/// `s = a + b`, and the layer norm of `s`.
#[derive(Debug)]
pub(super) struct AddLayerNorm {
    pub(super) eps: f32,
}

/// `y f[N, D], rstd f32[N], s f[N, D]` from `a f[N, D], b f[N, D], w f[D]`: `s = a + b`, and the
/// RMS norm of `s`.
#[derive(Debug)]
pub(super) struct AddRmsNorm {
    pub(super) eps: f32,
}

/// Shapes of `norm` over the sum of the first two operands, then that of the sum.
fn outputs(norm: &dyn Op, inputs: &[&Spec]) -> Shapes {
    let [a, b, weights @ ..] = inputs else {
        return Err(format!("{} operands, not 2 and weights", inputs.len()));
    };
    let mut sum = Add.outputs(&[a, b])?;
    let mut outputs = norm.outputs(&[&[&sum[0]], weights].concat())?;
    outputs.append(&mut sum);
    Ok(outputs)
}

/// FLOPs by element, and every operand moved once.
fn cost(io: &Io, flops: f64) -> Cost {
    Cost { flops: flops * io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
}

impl Op for AddLayerNorm {
    fn name(&self) -> &'static str {
        "add+layer_norm"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        outputs(&LayerNorm { eps: self.eps }, inputs)
    }

    fn cost(&self, io: &Io) -> Cost {
        cost(io, 1.0 + layer_norm::FLOPS)
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        layer_norm::cuda::forward(io, "add_layer_norm", self.eps)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::add_layer_norm(run, self);
        Ok(())
    }
}

impl Op for AddRmsNorm {
    fn name(&self) -> &'static str {
        "add+rms_norm"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        outputs(&RmsNorm { eps: self.eps }, inputs)
    }

    fn cost(&self, io: &Io) -> Cost {
        cost(io, 1.0 + rms_norm::FLOPS)
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        rms_norm::cuda::of_sum(io, self.eps)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::add_rms_norm(run, self);
        Ok(())
    }
}
