//! `multiply`: the elementwise product of two tensors of one shape. `a f[..], b f[..] -> f[..]`, of
//! a's dtype. Gradients: `da = dy b`, `db = dy a`; overwrites or accumulates. Elements beyond the
//! live extent are neither read nor written.

use crate::cpu::CpuRun;
use crate::cpu::isa::dispatch;
use crate::error::Result;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::ops::rows::{Shapes, expect_float, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

#[cfg(test)]
mod tests;

/// Elements of one chunk.
const CHUNK: usize = 16 * 1024;

/// `a b`.
#[derive(Debug)]
pub struct Multiply;

/// `a b`, both of one shape.
///
/// # Errors
/// [`crate::error::Error::Shape`] when shapes differ or one is not a float.
pub fn multiply(g: &mut Graph<'_>, a: Tensor, b: Tensor) -> Result<Tensor> {
    g.apply_one(Multiply, &[a, b])
}

impl Op for Multiply {
    fn name(&self) -> &'static str {
        "multiply"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [a, b] = operands(inputs)?;
        expect_float(a, &b.shape, "the first factor")?;
        expect_float(b, &a.shape, "the second factor")?;
        if a.live.is_some() && b.live.is_some() && a.live != b.live {
            return Err(format!("{a} and {b} are live up to different extents"));
        }
        Ok(vec![a.clone().with_live(a.live.or(b.live))])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let dy = backward.need(0)?;
        for i in 0..2 {
            if backward.wants(i) {
                let other = backward.input(1 - i)?;
                backward.give(i, Self, &[dy, other])?;
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

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        let live = run.live_input(0).min(run.live_input(1));
        let live = live * run.input_spec(0).elements_per_row();
        let (a, b) = (run.input::<f32>(0), run.input::<f32>(1));
        let (device, accumulate) = (run.device(), run.accumulate(0));
        device.pool.map_chunks(&mut run.output::<f32>(0)[..live], CHUNK, |chunk, out| {
            let part = chunk * CHUNK..chunk * CHUNK + out.len();
            product(device.isa, &a[part.clone()], &b[part], out, accumulate);
        });
        Ok(())
    }
}

dispatch! {
    fn product(a: &[f32], b: &[f32], out: &mut [f32], accumulate: bool) {
        let terms = out.iter_mut().zip(a.iter().zip(b));
        if accumulate {
            terms.for_each(|(o, (a, b))| *o += a * b);
        } else {
            terms.for_each(|(o, (a, b))| *o = a * b);
        }
    }
}
