//! A sum and a norm of its rows in one pass: the residual stream is read and written once. Same
//! bits as one op after the other.

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::Cost;
use crate::ops::add::{Add, sum};
use crate::ops::layer_norm::{self, LayerNorm};
use crate::ops::rms_norm::{self, RmsNorm};
use crate::ops::rows::{Shapes, map_rows};
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

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        let (a, b) = (run.input::<f32>(0), run.input::<f32>(1));
        let (w, bias) = (run.input::<f32>(2), run.input::<f32>(3));
        let (d, device) = (w.len(), run.device());
        let outputs =
            [(run.output(0), d), (run.output(1), 1), (run.output(2), 1), (run.output(3), d)];
        map_rows(&device.pool, run.live_output(3), d, outputs, |rows, [y, mean, rstd, s]| {
            let part = rows.start * d..rows.end * d;
            sum(device.isa, &a[part.clone()], &b[part], s, false);
            for (i, (s, y)) in s.chunks_exact(d).zip(y.chunks_exact_mut(d)).enumerate() {
                (mean[i], rstd[i]) =
                    layer_norm::cpu::normalise(device.isa, s, w, bias, self.eps, y);
            }
        });
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

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        let (a, b, w) = (run.input::<f32>(0), run.input::<f32>(1), run.input::<f32>(2));
        let (d, device) = (w.len(), run.device());
        let outputs = [(run.output(0), d), (run.output(1), 1), (run.output(2), d)];
        map_rows(&device.pool, run.live_output(2), d, outputs, |rows, [y, rstd, s]| {
            let part = rows.start * d..rows.end * d;
            sum(device.isa, &a[part.clone()], &b[part], s, false);
            for (i, (s, y)) in s.chunks_exact(d).zip(y.chunks_exact_mut(d)).enumerate() {
                rstd[i] = rms_norm::cpu::normalise(device.isa, s, w, self.eps, y);
            }
        });
        Ok(())
    }
}
