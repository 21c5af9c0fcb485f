//! `quantize`: a tensor as floats of 8 bits and one scale. `x f[..] -> q f8[..], scale f32[]`:
//! `scale = max |x| / largest f8`, `q = f8(x / scale)`, so that x is about `q · scale`.
//!
//! `dequantize` is the way back: `q f8[..], scale f32[] -> f[..]`. A scale is an ordinary tensor:
//! ops and products that take 8-bit floats take it beside them. A tensor of zeros has the scale 1;
//! one with an infinity or a NaN has the scale NaN, and so has all that is made of it. No gradient:
//! whoever trains through it says what flows back. Rows beyond the live extent are neither read nor
//! written, and do not count for the maximum.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::loss::expect_scalar;
use crate::ops::shapes::{Shapes, expect_float, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

#[derive(Debug)]
struct Quantize {
    to: DType,
}

#[derive(Debug)]
struct Dequantize {
    to: DType,
}

/// `x` as 8-bit floats, and their scale.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `x` is a float and `to` has 8 bits.
pub fn quantize(g: &mut Graph<'_>, x: Tensor, to: DType) -> Result<(Tensor, Tensor)> {
    let outputs = g.apply(Quantize { to }, &[x])?;
    Ok((outputs[0], outputs[1]))
}

/// `q · scale`, stored as `to`.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `q` has 8-bit floats, the scale is one `f32`, and `to` is
/// `F32` or a float that is widened to it.
pub fn dequantize(g: &mut Graph<'_>, q: Tensor, scale: Tensor, to: DType) -> Result<Tensor> {
    g.apply_one(Dequantize { to }, &[q, scale])
}

impl Op for Quantize {
    fn name(&self) -> &'static str {
        "quantize"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x] = operands(inputs)?;
        expect_float(x, &x.shape, "x")?;
        if !self.to.is_eighth() {
            return Err(format!("{x} as {}, which has no scale", self.to));
        }
        Ok(vec![x.clone().with_dtype(self.to), Spec::scalar(DType::F32)])
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn cost(&self, io: &Io) -> Cost {
        // x is read twice: for the maximum, and to be divided.
        let bytes = io.bytes() + io.inputs[0].bytes();
        Cost { flops: 2.0 * io.inputs[0].elements() as f64, bytes: bytes as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::quantize(io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::quantize(run);
        Ok(())
    }
}

impl Op for Dequantize {
    fn name(&self) -> &'static str {
        "dequantize"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [q, scale] = operands(inputs)?;
        expect_scalar(scale, "the scale")?;
        if !q.dtype.is_eighth() || !self.to.widens_to_f32() {
            return Err(format!("{q} as {}", self.to));
        }
        Ok(vec![q.clone().with_dtype(self.to)])
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.inputs[0].elements() as f64, bytes: io.bytes() as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::dequantize(io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::dequantize(run);
        Ok(())
    }
}
