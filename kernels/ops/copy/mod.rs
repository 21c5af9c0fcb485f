//! `copy`: the same elements in another tensor, converted between float dtypes. `T[..] -> T[..]`.
//! Accumulates: then it is how a finished gradient is added to a weight's gradient buffer, or
//! counts to a step sum.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Backward, Graph, Tensor, Write};
use crate::ops::Op;
use crate::ops::rows::{Shapes, expect_words, operands};
use crate::shape::Spec;

#[cfg(test)]
mod tests;

/// Copies its input.
#[derive(Debug)]
pub struct Copy;

/// Copies `source` into an existing tensor: a step buffer's slice, a state.
///
/// # Errors
/// [`crate::error::Error::Shape`] when the numbers of elements differ.
pub fn copy_into(g: &mut Graph<'_>, source: Tensor, target: Tensor) -> Result<()> {
    g.apply_into(Copy, &[source], target, Write::Overwrite)
}

/// Adds `source` to an existing tensor: load counts to a step sum.
///
/// # Errors
/// As [`copy_into`].
pub fn add_into(g: &mut Graph<'_>, source: Tensor, target: Tensor) -> Result<()> {
    g.apply_into(Copy, &[source], target, Write::Accumulate)
}

impl Op for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [x] = operands(inputs)?;
        expect_words(x, "the source")?;
        Ok(vec![x.clone()])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let gradient = backward.need(0)?;
        backward.pass(0, gradient)
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        let spec = run.input_spec(0);
        let live = run.live_input(0) * spec.elements_per_row();
        match spec.dtype {
            DType::I32 if run.accumulate(0) => {
                let (out, x) = (run.output::<i32>(0), run.input::<i32>(0));
                out[..live].iter_mut().zip(x).for_each(|(o, x)| *o += x);
            }
            DType::I32 => {
                run.output::<i32>(0)[..live].copy_from_slice(&run.input::<i32>(0)[..live]);
            }
            _ if run.accumulate(0) => {
                let (out, x) = (run.output::<f32>(0), run.input::<f32>(0));
                out[..live].iter_mut().zip(x).for_each(|(o, x)| *o += x);
            }
            _ => run.output::<f32>(0)[..live].copy_from_slice(&run.input::<f32>(0)[..live]),
        }
        Ok(())
    }
}
