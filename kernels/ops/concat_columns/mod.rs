//! `concat_columns`: matrices side by side. `x_1 T[.., C_1], .. -> T[.., Σ C_i]`, T any float or
//! `i32`.
//!
//! All operands have the same leading dimensions and one dtype; bits are copied. Gradients: the
//! columns of the output gradient; overwrite or accumulate. Rows beyond a live extent are neither
//! read nor written. `concat_rows` puts tensors one after the other along the leading dimension,
//! where all rows must be live.

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::shapes::Shapes;
use crate::ops::slice_columns::{SliceColumns, expect_columns};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

/// Joins matrices.
#[derive(Debug)]
pub struct ConcatColumns;

/// The operands side by side.
///
/// # Errors
/// [`crate::error::Error::Shape`] when leading dimensions or dtypes differ.
pub fn concat_columns(g: &mut Graph<'_>, xs: &[Tensor]) -> Result<Tensor> {
    g.apply_one(ConcatColumns, xs)
}

/// The operands one after the other.
///
/// # Errors
/// [`crate::error::Error::Shape`] when other dimensions or dtypes differ, or one has a live extent.
pub fn concat_rows(g: &mut Graph<'_>, xs: &[Tensor]) -> Result<Tensor> {
    let specs: Vec<Spec> = xs.iter().map(|&x| g.spec(x).clone()).collect();
    let alike = |s: &Spec| !s.shape.is_empty() && s.shape.get(1..) == specs[0].shape.get(1..);
    if specs.is_empty() || !specs.iter().all(alike) {
        return Err(g.refuse("concat_rows", format!("rows of {specs:?}")));
    }
    let mut flat = Vec::with_capacity(xs.len());
    for (&x, spec) in xs.iter().zip(&specs) {
        flat.push(g.reshape(x, &[1, spec.elements()])?);
    }
    let joined = concat_columns(g, &flat)?;
    let mut shape = specs[0].shape.clone();
    shape[0] = specs.iter().map(Spec::leading).sum();
    g.reshape(joined, &shape)
}

impl Op for ConcatColumns {
    fn name(&self) -> &'static str {
        "concat_columns"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let Some(first) = inputs.first() else { return Err("nothing to join".to_string()) };
        for x in inputs {
            expect_columns(x)?;
            let leading = |x: &Spec| x.shape[..x.shape.len() - 1].to_vec();
            if leading(x) != leading(first) || x.dtype != first.dtype {
                return Err(format!("{x} beside {first}"));
            }
        }
        let columns = inputs.iter().map(|x| x.columns()).sum();
        let live = inputs.iter().find_map(|x| x.live);
        Ok(vec![(*first).clone().with_columns(columns).with_live(live)])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let dy = backward.need(0)?;
        let mut start = 0;
        for i in 0..backward.inputs() {
            let count = backward.input_spec(i).columns();
            if backward.wants(i) {
                backward.give(i, SliceColumns { start, count }, &[dy])?;
            }
            start += count;
        }
        Ok(())
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 0.0, bytes: 2.0 * io.outputs[0].bytes() as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run);
        Ok(())
    }
}
