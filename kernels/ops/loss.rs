//! What losses share: their outputs and their scale.
//!
//! A loss is a sum of terms in f64, in a fixed order; `loss = scale * sum` is what backward starts
//! from, `sum` and the count of targets are for reports, and nothing flows back through those.

use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::Op;
use crate::shape::Spec;

/// Specs of `loss f32[]` and `loss_sum f32[]`.
pub(crate) fn loss_specs() -> [Spec; 2] {
    [Spec::scalar(DType::F32), Spec::scalar(DType::F32)]
}

/// Refuses what is not one `f32`.
pub(crate) fn expect_scalar(spec: &Spec, what: &str) -> std::result::Result<(), String> {
    if spec.elements() == 1 && spec.dtype == DType::F32 {
        return Ok(());
    }
    Err(format!("{what} is {spec}, not one f32"))
}

/// Adds a loss whose last input is its scale; nothing flows back to the scale or from the sum.
pub(crate) fn apply_loss(
    g: &mut Graph<'_>,
    op: impl Op + 'static,
    inputs: &[Tensor],
) -> Result<Vec<Tensor>> {
    let mut inputs = inputs.to_vec();
    if let Some(scale) = inputs.last_mut() {
        *scale = g.stop_gradient(*scale);
    }
    let mut outputs = g.apply(op, &inputs)?;
    outputs[1] = g.stop_gradient(outputs[1]);
    Ok(outputs)
}
