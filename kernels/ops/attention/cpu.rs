//! `attention` on the CPU: one chunk of work per sequence, head and tile of queries; tiles live on
//! the worker's stack. The key tiles decide where sums are cut, so they are part of the results.

use std::mem::MaybeUninit;

use crate::cpu::CpuRun;
use crate::cpu::gemm::{Extent, Matrix, Output, Panels, Size, gemm_trimmed};
use crate::cpu::isa::dispatch;
use crate::cpu::pool::Disjoint;
use crate::cpu::softmax::{exp_or_zero, exp_row, ln, row_max};
use crate::ops::attention::HEAD_DIM_MAX;
use crate::ops::attention::geometry::Geometry;
use crate::ops::attention::tiles::{Meeting, Relation, Sequences};

/// Queries of a tile.
pub(crate) const QUERIES: usize = 64;

/// Keys of a tile.
pub(crate) const KEYS: usize = 64;

/// A tile of scores: a row of [`KEYS`] per query.
pub(crate) type Scores = Tile<{ QUERIES * KEYS }>;

/// A tile of one head: a row of `head_dim` per query or key.
pub(crate) type HeadTile = Tile<{ QUERIES * HEAD_DIM_MAX }>;

/// Room for a tile on the stack, of which only what is used is touched.
pub(crate) struct Tile<const N: usize>([MaybeUninit<f32>; N]);

impl<const N: usize> Tile<N> {
    pub(crate) fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; N])
    }

    /// The first `count` elements, zeroed.
    pub(crate) fn zeroed(&mut self, count: usize) -> &mut [f32] {
        let part = &mut self.0[..count];
        part.fill(MaybeUninit::new(0.0));
        // SAFETY: every element was just written.
        unsafe { part.assume_init_mut() }
    }
}

/// A row's online softmax: the largest scaled score and the sum of exponentials so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    max: f32,
    sum: f32,
}

impl Row {
    pub(crate) const EMPTY: Self = Self { max: f32::NEG_INFINITY, sum: 0.0 };

    /// Divides the sums of values and returns logsumexp. Without keys: zeros and minus infinity.
    pub(crate) fn finish(self, sums: &[f32], out: &mut [f32]) -> f32 {
        let factor = if self.sum == 0.0 { 0.0 } else { 1.0 / self.sum };
        out.iter_mut().zip(sums).for_each(|(o, s)| *o = s * factor);
        (f64::from(self.max) + ln(self.sum)) as f32
    }
}

pub(super) fn run(run: &CpuRun<'_>, geometry: &Geometry) {
    let sequences = Sequences::new(run, geometry, 0);
    let (out, logsumexp) = (run.output::<f32>(0), run.output::<f32>(1));
    let (out, logsumexp) = (Disjoint::new(out), Disjoint::new(logsumexp));
    let (heads, head_dim) = (geometry.spec.heads, geometry.spec.head_dim);
    let tiles = geometry.spec.sequence_length.div_ceil(QUERIES);
    let device = run.device();
    device.pool.run(sequences.sequences() * heads * tiles, &|chunk, worker| {
        let (sequence, head, tile) = (chunk / tiles / heads, chunk / tiles % heads, chunk % tiles);
        let (first, count) = sequences.queries(sequence);
        let queries = tile * QUERIES..count.min((tile + 1) * QUERIES);
        if queries.is_empty() {
            return;
        }
        let (mut sums, mut scores) = (HeadTile::new(), Scores::new());
        let sums = sums.zeroed(queries.len() * head_dim);
        let scores = scores.zeroed(queries.len() * KEYS);
        let mut rows = [Row::EMPTY; QUERIES];
        let rows = &mut rows[..queries.len()];
        let mut panels = device.scratch.panels(worker);
        for meeting in sequences.meetings(sequence, queries.clone()) {
            let mut ends = [0; QUERIES];
            score(&mut panels, &sequences, head, &meeting, scores, &mut ends);
            let keys = meeting.keys.len();
            softmax_tile(device.isa, scores, keys, &ends, geometry.scale(), rows, sums);
            let v = sequences.v.matrix(meeting.key_row(), head / geometry.group());
            let size = Size { m: meeting.queries.len(), n: head_dim, k: keys };
            let output = Output::new(sums, head_dim, true);
            gemm_trimmed(&mut panels, size, Matrix::rows(scores, KEYS), v, output, &|rows| {
                Extent { columns: 0..head_dim, depth: meeting.seen(&sequences, rows) }
            });
        }
        for ((t, row), sums) in queries.zip(rows).zip(sums.chunks_exact(head_dim)) {
            let at = (first + t) * heads + head;
            // SAFETY: each row of a head belongs to one chunk.
            let (out, logsumexp) = unsafe {
                (out.range(at * head_dim..(at + 1) * head_dim), logsumexp.range(at..at + 1))
            };
            logsumexp[0] = row.finish(sums, out);
        }
    });
}

/// The scores of a meeting, minus infinity where a query does not see a key. Of each row only the
/// keys before its end, which is noted, have a score.
pub(super) fn score(
    panels: &mut Panels<'_>,
    sequences: &Sequences<'_>,
    head: usize,
    meeting: &Meeting,
    scores: &mut [f32],
    ends: &mut [usize],
) {
    let geometry = sequences.geometry;
    let q = sequences.q.matrix(meeting.query_row(), head);
    let k = sequences.k.transposed(meeting.key_row(), head / geometry.group());
    let head_dim = geometry.spec.head_dim;
    let output = Output::new(scores, KEYS, false);
    gemm_trimmed(panels, meeting.size(head_dim), q, k, output, &|rows| Extent {
        columns: meeting.seen(sequences, rows),
        depth: 0..head_dim,
    });
    let rows = scores.chunks_exact_mut(KEYS).zip(ends).take(meeting.queries.len());
    for (i, (scores, end)) in rows.enumerate() {
        let seen = meeting.seen(sequences, i..i + 1);
        *end = seen.end;
        scores[..seen.start].fill(f32::NEG_INFINITY);
        if meeting.relation == Relation::Mixed {
            let own = sequences.q_segments[meeting.query_row() + i];
            let segments = &sequences.kv_segments[meeting.key_row()..];
            for (score, &segment) in scores[..seen.end].iter_mut().zip(segments) {
                *score = if segment == own { *score } else { f32::NEG_INFINITY };
            }
        }
    }
}

dispatch! {
    /// Turns scores into exponentials relative to the rows' new maxima, and brings the rows' sums
    /// (of exponentials and of values) to the same maxima. From a row's end on there is nothing to
    /// see: zeros.
    pub(crate) fn softmax_tile(
        scores: &mut [f32],
        keys: usize,
        ends: &[usize],
        scale: f32,
        rows: &mut [Row],
        sums: &mut [f32],
    ) {
        let head_dim = sums.len() / rows.len();
        for (i, row) in rows.iter_mut().enumerate() {
            let (scores, unseen) = scores[i * KEYS..][..keys].split_at_mut(ends[i]);
            unseen.fill(0.0);
            let max = row_max(scores) * scale;
            let max = if max > row.max { max } else { row.max };
            if max == f32::NEG_INFINITY {
                // Nothing seen yet: the sum stays 0, unless a score is NaN.
                for score in scores {
                    *score = if score.is_nan() { *score } else { 0.0 };
                    row.sum += *score;
                }
                continue;
            }
            let rescale = exp_or_zero(row.max - max);
            row.sum = row.sum.mul_add(rescale, exp_row(scores, scale, max));
            row.max = max;
            sums[i * head_dim..][..head_dim].iter_mut().for_each(|s| *s *= rescale);
        }
    }
}
