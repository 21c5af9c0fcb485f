//! `contrastive_loss`: pairs find each other in a group (symmetric InfoNCE; Radford et al., CLIP,
//! arXiv:2103.00020). `a f[G, D], b f[G, D], log_scale f[], scale f32[] -> loss f32[], loss_sum
//! f32[]`.
//!
//! With logits `L_ij = e^log_scale · a_i · b_j`, the term of pair i is the mean of the
//! cross-entropies of row i and of column i with label i; `loss_sum` adds the terms in f64 in
//! order, `loss` is `scale` times it. Whoever wants cosines normalises a and b before; log_scale is
//! not clamped. Gradients to a, b and log_scale, those that are wanted, in one op that overwrites.
//! Logits are made [`BLOCK`] rows at a time, twice forward (rows, then columns) and once backward;
//! the sums of db run over blocks in order. Rows beyond the live extent are neither read nor
//! written.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::gradient_op::GradientOp;
use crate::ops::loss::{apply_loss, expect_scalar, loss_specs};
use crate::ops::shapes::{Shapes, expect_float, matrix, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// Rows of logits that exist at a time.
pub const BLOCK: usize = 64;

/// The loss. Its third output, `f32[4, G]`, holds the largest product of each row, the sum of the
/// row's exponentials relative to it, and both for each column.
#[derive(Debug)]
pub struct ContrastiveLoss;

/// Loss and its unscaled sum over the pairs of a group. Nothing flows back through the sum or to
/// the scale.
///
/// # Errors
/// [`crate::error::Error::Shape`] unless `a` and `b` are float matrices of one shape and the scales
/// single floats.
pub fn contrastive_loss(
    g: &mut Graph<'_>,
    a: Tensor,
    b: Tensor,
    log_scale: Tensor,
    scale: Tensor,
) -> Result<(Tensor, Tensor)> {
    let outputs = apply_loss(g, ContrastiveLoss, &[a, b, log_scale, scale])?;
    Ok((outputs[0], outputs[1]))
}

fn check(a: &Spec, b: &Spec, log_scale: &Spec, scale: &Spec) -> std::result::Result<usize, String> {
    let [group, columns] = matrix(a, "a")?;
    expect_float(b, &[group, columns], "b")?;
    if log_scale.elements() != 1 || !log_scale.dtype.widens_to_f32() {
        return Err(format!("log_scale is {log_scale}, not one float"));
    }
    expect_scalar(scale, "the scale")?;
    Ok(group)
}

/// FLOPs of `count` products of all rows with all rows.
fn product_flops(io: &Io, count: f64) -> f64 {
    count * 2.0 * io.inputs[0].leading() as f64 * io.inputs[0].elements() as f64
}

impl Op for ContrastiveLoss {
    fn name(&self) -> &'static str {
        "contrastive_loss"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [a, b, log_scale, scale] = operands(inputs)?;
        let group = check(a, b, log_scale, scale)?;
        let [loss, sum] = loss_specs();
        Ok(vec![loss, sum, Spec::new(&[4, group], DType::F32)])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let Some(dloss) = backward.gradient(0) else { return Ok(()) };
        let mut inputs = Vec::with_capacity(6);
        for i in 0..4 {
            inputs.push(backward.input(i)?);
        }
        inputs.extend([dloss, backward.output(2)?]);
        let wanted = std::array::from_fn(|i| backward.wants(i));
        // `a, b, log_scale, scale, dloss, the third output -> da, db, dlog_scale`.
        let rule = GradientOp {
            outputs: |wanted: &[bool; 3], of| {
                let all = [of[0].clone(), of[1].clone(), of[2].clone().with_dtype(DType::F32)];
                all.into_iter().zip(wanted).filter(|(_, w)| **w).map(|(s, _)| s).collect()
            },
            accumulates: false,
            flops: |&[a, b, _], io| product_flops(io, 1.0 + f64::from(u8::from(a) + u8::from(b))),
            cuda: |wanted, io| cuda::gradient(io, wanted),
            workspace: |_, io| BLOCK * (io.inputs[0].leading() + 1) * size_of::<f32>(),
            ..GradientOp::new("contrastive_loss_gradient", wanted, |run, &wanted| {
                cpu::gradient(run, wanted);
            })
        };
        let made = backward.graph().apply(rule, &inputs)?;
        let inputs = (0..3).filter(|&i| wanted[i]);
        inputs.zip(made).try_for_each(|(i, gradient)| backward.pass(i, gradient))
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: product_flops(io, 2.0), bytes: io.bytes() as f64 }
    }

    fn workspace(&self, io: &Io) -> usize {
        BLOCK * io.inputs[0].leading() * size_of::<f32>()
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run);
        Ok(())
    }
}
