//! `attention`: softmax attention inside sequences and documents, tile by tile with an online
//! softmax (Dao, arXiv:2307.08691); scores of all pairs are never held.
//!
//! Legend: B sequences of T rows, row n = b·T + t; H query heads, K key heads (H a multiple of K,
//! query head h reads key head h / (H / K)), D elements per head.
//!
//! Packed: `qkv f[N, (H+2K)·D], segments i32[N] -> out f[N, H·D]`; columns are all query heads,
//! then all key heads, then all value heads. Separate (cross attention): `q f[N, H·D], kv f[M,
//! 2K·D], q segments i32[N], kv segments i32[M]`, with sequences of their own length. With
//! [`Mask::Extents`] `extents i32[N]` follows as the last operand. A query sees the keys of its own
//! sequence with its own segment, as far as mask and window let it; without any, its output is 0.
//! Saved: `logsumexp f32[N, H]` of the scaled scores (minus infinity without keys).
//!
//! The gradient recomputes the probabilities from logsumexp and overwrites. Dead rows are neither
//! read nor written; live rows need not be whole sequences.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::gradient_op::GradientOp;
use crate::ops::shapes::{Shapes, expect_float, expect_i32, matrix, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod backward;
pub(crate) mod cpu;
mod cuda;
pub(crate) mod geometry;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
pub(crate) mod tiles;

pub use geometry::{AttentionSpec, Mask};
use geometry::{Geometry, Packing};

/// Largest head.
pub const HEAD_DIM_MAX: usize = 256;

/// Attention over one packing of its operands.
#[derive(Debug)]
struct Attention(Geometry);

/// Self attention over `qkv f[N, (H+2K)·D]` with `segments i32[N]`.
///
/// # Errors
/// [`crate::error::Error::Shape`] when the operands do not fit `spec` or it contradicts itself.
pub fn attention(
    g: &mut Graph<'_>,
    qkv: Tensor,
    segments: Tensor,
    spec: AttentionSpec,
) -> Result<Tensor> {
    let geometry = Geometry { spec, packing: Packing::Packed };
    Ok(g.apply(Attention(geometry), &[qkv, segments])?[0])
}

/// As [`attention`] with [`Mask::Extents`], whatever mask `spec` names: row n sees the keys of its
/// sequence and segment before `extents i32[N]` of it.
///
/// # Errors
/// As [`attention`].
pub fn attention_within(
    g: &mut Graph<'_>,
    qkv: Tensor,
    segments: Tensor,
    extents: Tensor,
    spec: AttentionSpec,
) -> Result<Tensor> {
    let spec = AttentionSpec { mask: Mask::Extents, ..spec };
    let geometry = Geometry { spec, packing: Packing::Packed };
    Ok(g.apply(Attention(geometry), &[qkv, segments, extents])?[0])
}

/// Attention of `q f[N, H·D]` over `kv f[M, 2K·D]`, whose sequences have `kv_length` rows.
///
/// `segments` are those of the queries and of the keys. With a causal mask query t sees keys 0..=t.
///
/// # Errors
/// As [`attention`].
pub fn cross_attention(
    g: &mut Graph<'_>,
    q: Tensor,
    kv: Tensor,
    segments: [Tensor; 2],
    kv_length: usize,
    spec: AttentionSpec,
) -> Result<Tensor> {
    let geometry = Geometry { spec, packing: Packing::Separate { kv_length } };
    Ok(g.apply(Attention(geometry), &[q, kv, segments[0], segments[1]])?[0])
}

impl Attention {
    /// FLOPs of one product over all pairs that see each other, whatever extents say.
    fn product_flops(geometry: &Geometry, rows: usize) -> f64 {
        let spec = &geometry.spec;
        let sequences = rows.div_ceil(spec.sequence_length);
        2.0 * (sequences * spec.heads * spec.head_dim) as f64 * geometry.pairs() as f64
    }
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        self.0.check(inputs)?;
        let (q, spec) = (inputs[0], &self.0.spec);
        let out = q.clone().with_columns(spec.heads * spec.head_dim);
        let logsumexp = q.clone().with_columns(spec.heads).with_dtype(DType::F32);
        Ok(vec![out, logsumexp])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let Some(dout) = backward.gradient(0) else { return Ok(()) };
        let mut operands = vec![dout, backward.output(0)?, backward.output(1)?];
        for i in 0..backward.inputs() {
            operands.push(backward.input(i)?);
        }
        let targets: &[usize] = match self.0.packing {
            Packing::Packed => &[0],
            Packing::Separate { .. } => &[0, 1],
        };
        // `dqkv`, or `dq` and `dkv`, from `dout, out, logsumexp` and the forward operands.
        let rule = GradientOp {
            outputs: |geometry: &Geometry, of| {
                let given = |operand: &&Spec| (*operand).clone().with_dtype(of[0].dtype);
                let count = if geometry.packing == Packing::Packed { 1 } else { 2 };
                of[3..3 + count].iter().map(given).collect()
            },
            accumulates: false,
            flops: |geometry, io| 5.0 * Self::product_flops(geometry, io.inputs[0].leading()),
            workspace: |_, io| io.inputs[2].elements() * size_of::<f32>(),
            cuda: |geometry, io| cuda::backward(io, geometry),
            ..GradientOp::new("attention_gradient", self.0, backward::run)
        };
        backward.give_all(targets, rule, &operands)
    }

    fn cost(&self, io: &Io) -> Cost {
        let flops = 2.0 * Self::product_flops(&self.0, io.inputs[0].leading());
        Cost { flops, bytes: io.bytes() as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io, &self.0)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::run(run, &self.0);
        Ok(())
    }
}

impl Geometry {
    /// Refuses a specification that contradicts itself and operands that do not fit it.
    fn check(&self, inputs: &[&Spec]) -> std::result::Result<(), String> {
        let AttentionSpec { heads, kv_heads, head_dim, sequence_length, .. } = self.spec;
        if heads == 0 || kv_heads == 0 || heads % kv_heads != 0 {
            return Err(format!("{heads} query heads over {kv_heads} key heads"));
        }
        if head_dim == 0 || head_dim > HEAD_DIM_MAX {
            return Err(format!("heads of {head_dim} elements, not 1..={HEAD_DIM_MAX}"));
        }
        if self.spec.window == Some(0) || self.spec.scale.is_some_and(|s| s <= 0.0) {
            return Err("a window or scale of nothing".to_string());
        }
        let sequences = |spec: &Spec, length: usize, what: &str| {
            let [rows, _] = matrix(spec, what)?;
            if length == 0 || rows % length != 0 {
                return Err(format!("{what} is {spec}: no whole sequences of {length}"));
            }
            Ok(rows)
        };
        let (own, shared) = (heads * head_dim, 2 * kv_heads * head_dim);
        let inputs = match (self.spec.mask, inputs) {
            (Mask::Extents, [others @ .., extents]) => {
                expect_i32(extents, &[inputs[0].leading()], "extents")?;
                others
            }
            _ => inputs,
        };
        match self.packing {
            Packing::Packed => {
                let [qkv, segments] = operands(inputs)?;
                let rows = sequences(qkv, sequence_length, "qkv")?;
                expect_float(qkv, &[rows, own + shared], "qkv")?;
                expect_i32(segments, &[rows], "segments")
            }
            Packing::Separate { kv_length } => {
                let [q, kv, q_segments, kv_segments] = operands(inputs)?;
                let rows = sequences(q, sequence_length, "q")?;
                let kv_rows = sequences(kv, kv_length, "kv")?;
                if rows / sequence_length != kv_rows / kv_length {
                    return Err(format!("q is {q}, kv is {kv}: sequences differ in number"));
                }
                expect_float(q, &[rows, own], "q")?;
                expect_float(kv, &[kv_rows, shared], "kv")?;
                expect_i32(q_segments, &[rows], "query segments")?;
                expect_i32(kv_segments, &[kv_rows], "key segments")
            }
        }
    }
}
