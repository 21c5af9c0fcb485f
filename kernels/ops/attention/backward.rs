//! The gradient of `attention` on the CPU: one chunk of work per sequence and key head, so that the
//! gradients of keys and values are summed by one worker, in order.

use std::ops::Range;

use crate::cpu::gemm::{Extent, Matrix, Output, Panels, Size, gemm_trimmed};
use crate::cpu::isa::{Isa, dispatch};
use crate::cpu::pool::Disjoint;
use crate::cpu::rows::{map_rows, sums};
use crate::cpu::softmax::exp_or_zero;
use crate::cpu::{CpuRun, vector};
use crate::ops::attention::cpu::{HeadTile, KEYS, QUERIES, Scores, score};
use crate::ops::attention::geometry::{Geometry, Packing};
use crate::ops::attention::tiles::{Heads, Meeting, Sequences};

/// Where the gradients of q, k and v go.
struct Outputs<'a> {
    q: Disjoint<'a, f32>,
    kv: Option<Disjoint<'a, f32>>,
}

impl Outputs<'_> {
    /// A part of the buffer that keys and values share.
    ///
    /// # Safety
    /// As for [`Disjoint::range`].
    #[expect(clippy::mut_from_ref, reason = "the caller keeps the parts apart")]
    unsafe fn kv(&self, at: usize, count: usize) -> &mut [f32] {
        // SAFETY: the caller vouches for it.
        unsafe { self.kv.as_ref().unwrap_or(&self.q).range(at..at + count) }
    }
}

/// What every chunk reads.
struct Pass<'a> {
    isa: Isa,
    sequences: Sequences<'a>,
    dout: Heads<'a>,
    logsumexp: &'a [f32],
    delta: &'a [f32],
    outputs: Outputs<'a>,
}

/// What a chunk works in.
struct Tiles<'a, 'p> {
    panels: Panels<'p>,
    scores: &'a mut [f32],
    dscores: &'a mut [f32],
    dq: &'a mut [f32],
    dk: &'a mut [f32],
    dv: &'a mut [f32],
}

pub(super) fn run(run: &CpuRun<'_>, geometry: &Geometry) {
    let spec = &geometry.spec;
    let sequences = Sequences::new(run, geometry, 3);
    let (dout, out, logsumexp) = (run.input::<f32>(0), run.input::<f32>(1), run.input::<f32>(2));
    let (device, delta) = (run.device(), run.workspace::<f32>());
    // Σ dout · out of every row and head: what the softmax takes back from each score.
    let (heads, head_dim) = (spec.heads, spec.head_dim);
    let outputs = [(&mut delta[..], heads)];
    map_rows(&device.pool, sequences.q_live(), heads * head_dim, outputs, |rows, [delta]| {
        let part = rows.start * heads * head_dim..rows.end * heads * head_dim;
        products(device.isa, &dout[part.clone()], &out[part], delta);
    });
    let packed = geometry.packing == Packing::Packed;
    let pass = Pass {
        isa: device.isa,
        sequences,
        dout: Heads { data: dout, stride: heads * head_dim, first: 0, head_dim },
        logsumexp,
        delta,
        outputs: Outputs {
            q: Disjoint::new(run.output::<f32>(0)),
            kv: (!packed).then(|| Disjoint::new(run.output::<f32>(1))),
        },
    };
    device.pool.run(pass.sequences.sequences() * spec.kv_heads, &|chunk, worker| {
        let (mut scores, mut dscores) = (Scores::new(), Scores::new());
        let (mut dq, mut dk, mut dv) = (HeadTile::new(), HeadTile::new(), HeadTile::new());
        let mut tiles = Tiles {
            panels: device.scratch.panels(worker),
            scores: scores.zeroed(QUERIES * KEYS),
            dscores: dscores.zeroed(QUERIES * KEYS),
            dq: dq.zeroed(QUERIES * head_dim),
            dk: dk.zeroed(KEYS * head_dim),
            dv: dv.zeroed(KEYS * head_dim),
        };
        pass.chunk(chunk / spec.kv_heads, chunk % spec.kv_heads, &mut tiles);
    });
}

impl Pass<'_> {
    /// All gradients of one key head of a sequence and of the query heads that read it.
    fn chunk(&self, sequence: usize, kv_head: usize, tiles: &mut Tiles<'_, '_>) {
        let Sequences { geometry, q, k, v, .. } = &self.sequences;
        let (group, head_dim) = (geometry.group(), geometry.spec.head_dim);
        let (first, count) = self.sequences.queries(sequence);
        for row in first..first + count {
            let at = q.at(row, kv_head * group);
            // SAFETY: these query heads belong to this chunk alone.
            unsafe { self.outputs.q.range(at..at + group * head_dim) }.fill(0.0);
        }
        let (first, count) = self.sequences.keys(sequence);
        for start in (0..count).step_by(KEYS) {
            let keys = start..count.min(start + KEYS);
            tiles.dk.fill(0.0);
            tiles.dv.fill(0.0);
            for head in kv_head * group..(kv_head + 1) * group {
                for meeting in self.sequences.meetings_of_keys(sequence, keys.clone()) {
                    self.meet(head, &meeting, tiles);
                }
            }
            let done = tiles.dk.chunks_exact(head_dim).zip(tiles.dv.chunks_exact(head_dim));
            for (t, (dk, dv)) in keys.zip(done) {
                let (key, value) = (k.at(first + t, kv_head), v.at(first + t, kv_head));
                // SAFETY: this key head's rows belong to this chunk alone.
                unsafe {
                    self.outputs.kv(key, head_dim).copy_from_slice(dk);
                    self.outputs.kv(value, head_dim).copy_from_slice(dv);
                }
            }
        }
    }

    /// Adds what one tile of queries and keys contributes.
    fn meet(&self, head: usize, meeting: &Meeting, tiles: &mut Tiles<'_, '_>) {
        let Sequences { geometry, q, k, v, .. } = &self.sequences;
        let Tiles { panels, scores, dscores, dq, dk, dv } = tiles;
        let (heads, head_dim) = (geometry.spec.heads, geometry.spec.head_dim);
        let (kv_head, scale) = (head / geometry.group(), geometry.scale());
        let (queries, keys) = (meeting.queries.len(), meeting.keys.len());
        let (query_row, key_row) = (meeting.query_row(), meeting.key_row());
        let mut ends = [0; QUERIES];
        score(panels, &self.sequences, head, meeting, scores, &mut ends);
        let seen = |rows: Range<usize>| meeting.seen(&self.sequences, rows);
        let over_keys = |rows: Range<usize>| Extent { columns: 0..head_dim, depth: seen(rows) };
        let of_keys = |rows: Range<usize>| Extent { columns: seen(rows), depth: 0..head_dim };
        let over_queries = |rows: Range<usize>| Extent {
            columns: 0..head_dim,
            depth: meeting.seeing(&self.sequences, rows),
        };
        let saved = |x: &'_ [f32], i: usize| x[(query_row + i) * heads + head];
        for i in 0..queries {
            let (row, unseen) = scores[i * KEYS..][..keys].split_at_mut(ends[i]);
            probabilities(self.isa, row, scale, saved(self.logsumexp, i));
            unseen.fill(0.0);
        }
        let to_keys = Size { m: keys, n: head_dim, k: queries };
        let dout = self.dout.matrix(query_row, head);
        let p = Matrix::transposed(scores, KEYS);
        let output = Output::new(dv, head_dim, true);
        gemm_trimmed(panels, to_keys, p, dout, output, &over_queries);
        let v = v.transposed(key_row, kv_head);
        let output = Output::new(dscores, KEYS, false);
        gemm_trimmed(panels, meeting.size(head_dim), dout, v, output, &of_keys);
        for i in 0..queries {
            let p = &scores[i * KEYS..][..ends[i]];
            let (row, unseen) = dscores[i * KEYS..][..keys].split_at_mut(ends[i]);
            score_gradient(self.isa, p, row, saved(self.delta, i), scale);
            unseen.fill(0.0);
        }
        let ds = Matrix::transposed(dscores, KEYS);
        let query = q.matrix(query_row, head);
        let output = Output::new(dk, head_dim, true);
        gemm_trimmed(panels, to_keys, ds, query, output, &over_queries);
        let to_queries = Size { m: queries, n: head_dim, k: keys };
        let (ds, key) = (Matrix::rows(dscores, KEYS), k.matrix(key_row, kv_head));
        gemm_trimmed(panels, to_queries, ds, key, Output::new(dq, head_dim, false), &over_keys);
        for (i, dq) in dq.chunks_exact(head_dim).take(queries).enumerate() {
            let at = q.at(query_row + i, head);
            // SAFETY: this query head's rows belong to this chunk alone.
            let sum = unsafe { self.outputs.q.range(at..at + head_dim) };
            vector::add_scaled(self.isa, sum, 1.0, dq);
        }
    }
}

dispatch! {
    /// One inner product per element of `out`.
    fn products(x: &[f32], y: &[f32], out: &mut [f32]) {
        let length = x.len() / out.len();
        for ((x, y), out) in x.chunks_exact(length).zip(y.chunks_exact(length)).zip(out) {
            [*out] = sums(x, y, y, |x, y, _| [x * y]);
        }
    }

    /// Softmax from a known logsumexp. A row without keys has none: all its probabilities are 0.
    fn probabilities(scores: &mut [f32], scale: f32, logsumexp: f32) {
        if logsumexp == f32::NEG_INFINITY {
            scores.fill(0.0);
            return;
        }
        for score in scores {
            *score = exp_or_zero(score.mul_add(scale, -logsumexp));
        }
    }

    /// `scale · p (dp - delta)`, in the place of dp.
    fn score_gradient(p: &[f32], dp: &mut [f32], delta: f32, scale: f32) {
        for (dp, &p) in dp.iter_mut().zip(p) {
            *dp = scale * (p * (*dp - delta));
        }
    }
}
