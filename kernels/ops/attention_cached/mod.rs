//! `attention_cached`: generation, one row after another, over keys and values of earlier rows.
//!
//! Legend: B sequences, N rows, each of any sequence (one when decoding, many of a prompt); H query
//! heads, K key heads of D elements; caches hold P positions. `cache_append` writes the keys and
//! values of `qkv f[N, (H+2K)·D]` to `positions i32[N]` of `sequences i32[N]` in the states
//! `f[B, P, K·D]`; a row with a position outside 0..P or a sequence outside 0..B is left out.
//! `attention_over_cache` then gives `out f[N, H·D]`: the query of row n attends to positions
//! 0..=`positions[n]` of its sequence, within the window. A negative position sees nothing and
//! gives 0; one of P or more, or a sequence that is not there, gives NaN.
//!
//! Forward only. On the CPU sums are cut as in `attention`, so that decoding gives the bits of
//! causal attention over the whole sequence; on a GPU each row's sums have an order of their own.
//! Segments play no part: a cache holds one document. Rows of one append have places of their own.
//! Dead rows are neither read nor written.

use crate::cpu::CpuRun;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Cost, Graph, Tensor, Write};
use crate::launch::Launches;
use crate::ops::attention::geometry::{Geometry, Packing};
use crate::ops::attention::{AttentionSpec, HEAD_DIM_MAX, Mask};
use crate::ops::shapes::{Shapes, expect_float, expect_i32, matrix, operands};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

/// Heads and sizes of a cache.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CacheSpec {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Sequences, B.
    pub sequences: usize,
    /// Positions that a cache holds per sequence, P.
    pub positions: usize,
    /// Only keys less than this many positions away, the query's own included.
    pub window: Option<usize>,
    /// What scores are multiplied by; `1 / √head_dim` if not given.
    pub scale: Option<f32>,
}

/// Where rows belong: `i32[N]` each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Position in the sequence.
    pub positions: Tensor,
    /// Number of the sequence among those of the caches.
    pub sequences: Tensor,
}

/// Keys and values of earlier rows: states `f[B, P, K·D]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caches {
    /// After rotation.
    pub keys: Tensor,
    /// As the projection made them.
    pub values: Tensor,
}

/// Writes columns `first..` of its rows to their positions.
#[derive(Debug)]
struct CacheAppend {
    spec: CacheSpec,
    first: usize,
}

/// Attention of the queries of `qkv` over the caches.
#[derive(Debug)]
struct AttentionOverCache(CacheSpec);

/// Writes keys and values of `qkv` to the caches without attending: after a prefill.
///
/// # Errors
/// [`crate::error::Error::Shape`] when operands do not fit `spec`.
pub fn cache_append(
    g: &mut Graph<'_>,
    qkv: Tensor,
    places: Places,
    caches: Caches,
    spec: CacheSpec,
) -> Result<()> {
    let Places { positions, sequences } = places;
    let first = spec.heads * spec.head_dim;
    for (cache, first) in [(caches.keys, first), (caches.values, first + spec.shared())] {
        let expected = [spec.sequences, spec.positions, spec.shared()];
        if g.spec(cache).shape != expected {
            let what = format!("a cache is {}, not {expected:?}", g.spec(cache));
            return Err(g.refuse("cache_append", what));
        }
        let op = CacheAppend { spec, first };
        g.apply_into(op, &[qkv, positions, sequences], cache, Write::Overwrite)?;
    }
    Ok(())
}

/// Appends `qkv` to the caches, then attends over them.
///
/// # Errors
/// As [`cache_append`].
pub fn attention_cached(
    g: &mut Graph<'_>,
    qkv: Tensor,
    places: Places,
    caches: Caches,
    spec: CacheSpec,
) -> Result<Tensor> {
    cache_append(g, qkv, places, caches, spec)?;
    let inputs = [qkv, places.positions, places.sequences, caches.keys, caches.values];
    g.apply_one(AttentionOverCache(spec), &inputs)
}

impl CacheSpec {
    /// Columns of all key heads.
    fn shared(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// The attention whose bits are those of the cached one.
    fn geometry(&self) -> Geometry {
        let spec = AttentionSpec {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            sequence_length: self.positions,
            mask: Mask::Causal,
            window: self.window,
            scale: self.scale,
        };
        Geometry { spec, packing: Packing::Packed }
    }

    /// Where the keys of a row's sequence begin, if there is such a sequence.
    fn sequence(&self, number: i32) -> Option<usize> {
        let number = usize::try_from(number).ok().filter(|&number| number < self.sequences)?;
        Some(number * self.positions * self.shared())
    }

    /// Rows of all sequences.
    fn check(&self, qkv: &Spec, places: [&Spec; 2]) -> std::result::Result<usize, String> {
        let Self { heads, kv_heads, head_dim, .. } = *self;
        if kv_heads == 0 || heads % kv_heads != 0 || !(1..=HEAD_DIM_MAX).contains(&head_dim) {
            return Err(format!("{heads} query heads over {kv_heads} key heads of {head_dim}"));
        }
        let [rows, _] = matrix(qkv, "qkv")?;
        expect_float(qkv, &[rows, (heads + 2 * kv_heads) * head_dim], "qkv")?;
        for (spec, name) in places.into_iter().zip(["positions", "sequences"]) {
            expect_i32(spec, &[rows], name)?;
        }
        Ok(rows)
    }
}

impl Op for CacheAppend {
    fn name(&self) -> &'static str {
        "cache_append"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [qkv, positions, sequences] = operands(inputs)?;
        self.spec.check(qkv, [positions, sequences])?;
        let CacheSpec { sequences, positions, .. } = self.spec;
        Ok(vec![Spec::new(&[sequences, positions, self.spec.shared()], qkv.dtype)])
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn cost(&self, io: &Io) -> Cost {
        let elements = io.inputs[0].leading() * self.spec.shared();
        Cost { flops: 0.0, bytes: (2 * elements * io.inputs[0].dtype.bytes()) as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::append(io, &self.spec, self.first)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::append(run, &self.spec, self.first);
        Ok(())
    }
}

impl Op for AttentionOverCache {
    fn name(&self) -> &'static str {
        "attention_over_cache"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [qkv, positions, sequences, keys, values] = operands(inputs)?;
        self.0.check(qkv, [positions, sequences])?;
        let cache = [self.0.sequences, self.0.positions, self.0.shared()];
        expect_float(keys, &cache, "the keys")?;
        expect_float(values, &cache, "the values")?;
        Ok(vec![qkv.clone().with_columns(self.0.heads * self.0.head_dim)])
    }

    fn cost(&self, io: &Io) -> Cost {
        // On average half of the cache is filled.
        let pairs = io.inputs[0].leading() * self.0.positions / 2;
        let flops = 4.0 * (pairs * self.0.heads * self.0.head_dim) as f64;
        Cost { flops, bytes: io.bytes() as f64 }
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::attend(io, &self.0)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::attend(run, &self.0);
        Ok(())
    }
}
