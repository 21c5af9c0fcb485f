//! Which query sees which key. Pure bookkeeping for every backend: no numbers are read.

use std::ops::Range;

/// What an attention computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements per head, at most 256.
    pub head_dim: usize,
    /// Query rows of one sequence.
    pub sequence_length: usize,
    /// Who sees whom.
    pub mask: Mask,
    /// Only keys less than this many positions away, the query's own included.
    pub window: Option<usize>,
    /// What scores are multiplied by; `1 / √head_dim` if not given.
    pub scale: Option<f32>,
}

/// Who sees whom inside a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// A query sees keys up to its own position.
    Causal,
    /// Every query sees every key.
    Bidirectional,
    /// A query sees the keys before the extent of its row: key s of its sequence if s < extent. An
    /// operand `extents i32[N]` says it, so that it may be another one for each row: a prefix that
    /// is seen both ways and a rest that looks back (prefix-LM), or parts that see a common
    /// context (GLM). An extent of 0 or less sees nothing, one beyond the sequence all of it.
    Extents,
}

/// How operands are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// One row holds query, key and value heads.
    Packed,
    /// Queries alone; keys and values in rows of their own.
    Separate {
        /// Key rows of one sequence.
        kv_length: usize,
    },
}

/// A specification and a packing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    pub(crate) spec: AttentionSpec,
    pub(crate) packing: Packing,
}

impl Geometry {
    /// Key rows of one sequence.
    pub(crate) fn kv_length(&self) -> usize {
        match self.packing {
            Packing::Packed => self.spec.sequence_length,
            Packing::Separate { kv_length } => kv_length,
        }
    }

    /// What scores are multiplied by.
    pub(crate) fn scale(&self) -> f32 {
        self.spec.scale.unwrap_or_else(|| (1.0 / (self.spec.head_dim as f64).sqrt()) as f32)
    }

    /// Query heads that read one key head.
    pub(crate) fn group(&self) -> usize {
        self.spec.heads / self.spec.kv_heads
    }

    /// The keys that query `t` may see, segments and extents aside, of `keys` in its sequence.
    pub(crate) fn visible(&self, t: usize, keys: usize) -> Range<usize> {
        let low = self.spec.window.map_or(0, |window| (t + 1).saturating_sub(window));
        let high = match (self.spec.mask, self.spec.window) {
            (Mask::Causal, _) => t + 1,
            (Mask::Bidirectional | Mask::Extents, Some(window)) => t.saturating_add(window),
            (Mask::Bidirectional | Mask::Extents, None) => keys,
        };
        let high = high.min(keys);
        low.min(high)..high
    }

    /// The keys that any of these queries may see.
    pub(crate) fn visible_to_any(&self, queries: &Range<usize>, keys: usize) -> Range<usize> {
        let (first, last) =
            (self.visible(queries.start, keys), self.visible(queries.end - 1, keys));
        first.start..last.end
    }

    /// The queries that may see any of these keys, extents aside, of `queries` in the sequence.
    pub(crate) fn seeing_any(&self, keys: &Range<usize>, queries: usize) -> Range<usize> {
        let low = match (self.spec.mask, self.spec.window) {
            (Mask::Causal, _) => keys.start,
            (Mask::Bidirectional | Mask::Extents, Some(window)) => {
                (keys.start + 1).saturating_sub(window)
            }
            (Mask::Bidirectional | Mask::Extents, None) => 0,
        };
        let high = self.spec.window.map_or(queries, |w| (keys.end - 1).saturating_add(w));
        let high = high.min(queries);
        low.min(high)..high
    }

    /// Pairs of one sequence that see each other, segments and extents aside.
    pub(crate) fn pairs(&self) -> usize {
        let keys = self.kv_length();
        (0..self.spec.sequence_length).map(|t| self.visible(t, keys).len()).sum()
    }
}
