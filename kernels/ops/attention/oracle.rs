//! `attention` in f64, pair by pair.

use crate::ops::attention::{AttentionSpec, Mask};

/// The operands of separate packing; packed rows are taken apart first.
pub(super) struct Case<'a> {
    pub(super) spec: AttentionSpec,
    pub(super) kv_length: usize,
    pub(super) q_segments: &'a [i32],
    pub(super) kv_segments: &'a [i32],
    /// With [`Mask::Extents`].
    pub(super) extents: &'a [i32],
}

impl Case<'_> {
    /// Rows of query heads and rows of key and value heads, out of packed rows.
    pub(super) fn unpack(&self, qkv: &[f64]) -> [Vec<f64>; 2] {
        let own = self.spec.heads * self.spec.head_dim;
        let columns = own + 2 * self.spec.kv_heads * self.spec.head_dim;
        let rows = || qkv.chunks(columns);
        [
            rows().flat_map(|row| row[..own].to_vec()).collect(),
            rows().flat_map(|row| row[own..].to_vec()).collect(),
        ]
    }

    fn sees(&self, query: usize, key: usize) -> bool {
        let spec = &self.spec;
        let (t, s) = (query % spec.sequence_length, key % self.kv_length);
        let near = spec.window.is_none_or(|window| t.abs_diff(s) < window);
        query / spec.sequence_length == key / self.kv_length
            && self.q_segments[query] == self.kv_segments[key]
            && match spec.mask {
                Mask::Causal => s <= t,
                Mask::Bidirectional => true,
                Mask::Extents => (s as i64) < i64::from(self.extents[query]),
            }
            && near
    }

    /// The output rows, given `live` query rows and `kv_live` key rows.
    pub(super) fn forward(&self, q: &[f64], kv: &[f64]) -> Vec<f64> {
        let AttentionSpec { heads, kv_heads, head_dim, .. } = self.spec;
        let scale = self.spec.scale.map_or(1.0 / (head_dim as f64).sqrt(), f64::from);
        let (own, shared) = (heads * head_dim, kv_heads * head_dim);
        let mut out = vec![0.0; q.len()];
        for (query, (q, out)) in q.chunks(own).zip(out.chunks_mut(own)).enumerate() {
            for head in 0..heads {
                let q = &q[head * head_dim..][..head_dim];
                let out = &mut out[head * head_dim..][..head_dim];
                let first = head / (heads / kv_heads) * head_dim;
                let keys: Vec<usize> =
                    (0..kv.len() / (2 * shared)).filter(|&key| self.sees(query, key)).collect();
                let row = |key: usize, at: usize| &kv[key * 2 * shared + at + first..][..head_dim];
                let dot = |k: &[f64]| q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() * scale;
                let scores: Vec<f64> = keys.iter().map(|&key| dot(row(key, 0))).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                for (&key, s) in keys.iter().zip(&scores) {
                    let p = (s - max).exp() / total;
                    out.iter_mut().zip(row(key, shared)).for_each(|(o, v)| *o += p * v);
                }
            }
        }
        out
    }
}
