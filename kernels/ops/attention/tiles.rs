//! Where heads lie in rows, and which tiles of queries and keys meet, on the CPU.
//!
//! Everything that extents decide is decided here: [`Geometry`] reads no numbers.

use std::ops::Range;

use crate::cpu::CpuRun;
use crate::cpu::gemm::{Matrix, Size};
use crate::ops::attention::Mask;
use crate::ops::attention::cpu::{KEYS, QUERIES};
use crate::ops::attention::geometry::{Geometry, Packing};

/// Heads inside rows of a matrix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) first: usize,
    pub(crate) head_dim: usize,
}

impl<'a> Heads<'a> {
    /// Where a head of a row begins.
    pub(crate) fn at(&self, row: usize, head: usize) -> usize {
        row * self.stride + self.first + head * self.head_dim
    }

    /// A head from `row` on: one row of the matrix per row.
    pub(crate) fn matrix(&self, row: usize, head: usize) -> Matrix<'a> {
        Matrix::rows(&self.data[self.at(row, head)..], self.stride)
    }

    /// Likewise with rows and columns exchanged.
    pub(crate) fn transposed(&self, row: usize, head: usize) -> Matrix<'a> {
        Matrix::transposed(&self.data[self.at(row, head)..], self.stride)
    }
}

/// The sequences of one run: heads and segments of queries and keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sequences<'a> {
    pub(crate) geometry: &'a Geometry,
    pub(crate) q: Heads<'a>,
    pub(crate) k: Heads<'a>,
    pub(crate) v: Heads<'a>,
    pub(crate) q_segments: &'a [i32],
    pub(crate) kv_segments: &'a [i32],
    extents: Option<&'a [i32]>,
    q_live: usize,
    kv_live: usize,
}

impl<'a> Sequences<'a> {
    /// Reads them from input `first` on.
    pub(crate) fn new(run: &CpuRun<'a>, geometry: &'a Geometry, first: usize) -> Self {
        let spec = &geometry.spec;
        let (head_dim, stride) = (spec.head_dim, run.input_spec(first).columns());
        let data = run.input::<f32>(first);
        let q = Heads { data, stride, first: 0, head_dim };
        let (k, kv, segments) = match geometry.packing {
            Packing::Packed => (Heads { first: spec.heads * head_dim, ..q }, first, [1, 1]),
            Packing::Separate { .. } => {
                let (data, stride) =
                    (run.input::<f32>(first + 1), run.input_spec(first + 1).columns());
                (Heads { data, stride, first: 0, head_dim }, first + 1, [2, 3])
            }
        };
        let [q_segments, kv_segments] = segments.map(|i| run.input::<i32>(first + i));
        let has_extents = spec.mask == Mask::Extents;
        let extents = has_extents.then(|| run.input::<i32>(first + segments[1] + 1));
        Self {
            geometry,
            q,
            k,
            v: Heads { first: k.first + spec.kv_heads * head_dim, ..k },
            q_segments,
            kv_segments,
            extents,
            q_live: run.live_input(first),
            kv_live: run.live_input(kv),
        }
    }

    /// Sequences with any live query or key.
    pub(crate) fn sequences(&self) -> usize {
        let queries = self.q_live.div_ceil(self.geometry.spec.sequence_length);
        queries.max(self.kv_live.div_ceil(self.geometry.kv_length()))
    }

    /// Live queries of a sequence: its first row, and how many.
    pub(crate) fn queries(&self, sequence: usize) -> (usize, usize) {
        part(sequence, self.geometry.spec.sequence_length, self.q_live)
    }

    /// Live keys of a sequence: its first row, and how many.
    pub(crate) fn keys(&self, sequence: usize) -> (usize, usize) {
        part(sequence, self.geometry.kv_length(), self.kv_live)
    }

    /// Live query rows.
    pub(crate) fn q_live(&self) -> usize {
        self.q_live
    }

    /// The extents of these queries of the sequence whose first row is `first`.
    fn extents(&self, first: usize, queries: &Range<usize>) -> Option<&'a [i32]> {
        self.extents.map(|all| &all[first..][queries.clone()])
    }

    /// The keys that any of these queries may see, of `keys` in their sequence.
    fn visible_to_any(&self, first: usize, queries: &Range<usize>, keys: usize) -> Range<usize> {
        let visible = self.geometry.visible_to_any(queries, keys);
        let Some(extents) = self.extents(first, queries) else { return visible };
        let longest = extents.iter().copied().max().unwrap_or(0).max(0) as usize;
        visible.start.min(longest)..visible.end.min(longest)
    }

    /// The queries of these that may see any of the keys.
    fn seeing_any(&self, first: usize, keys: &Range<usize>, of: &Range<usize>) -> Range<usize> {
        let seeing = self.geometry.seeing_any(keys, of.end);
        let seeing = seeing.start.clamp(of.start, of.end)..seeing.end.clamp(of.start, of.end);
        let Some(extents) = self.extents(first, &seeing) else { return seeing };
        let sees = |extent: &i32| *extent > keys.start as i32;
        let Some(low) = extents.iter().position(sees) else { return seeing.start..seeing.start };
        let high = extents.iter().rposition(sees).map_or(low, |last| last + 1);
        seeing.start + low..seeing.start + high
    }
}

fn part(sequence: usize, length: usize, live: usize) -> (usize, usize) {
    let first = sequence * length;
    (first, live.saturating_sub(first).min(length))
}

/// How the segments of a tile's queries and keys relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    /// All are one segment.
    Same,
    /// No query has the segment of a key.
    Apart,
    /// Each pair must be looked at.
    Mixed,
}

impl Relation {
    /// By the smallest and largest segment on either side.
    fn of(queries: &[i32], keys: &[i32]) -> Self {
        let bounds = |segments: &[i32]| {
            let first = segments.first().copied().unwrap_or(0);
            segments.iter().fold((first, first), |(low, high), &s| (low.min(s), high.max(s)))
        };
        let (queries, keys) = (bounds(queries), bounds(keys));
        if queries.1 < keys.0 || keys.1 < queries.0 {
            Self::Apart
        } else if queries == keys && queries.0 == queries.1 {
            Self::Same
        } else {
            Self::Mixed
        }
    }
}

/// Queries and keys of one sequence that meet in a tile, by position in the sequence.
#[derive(Debug, Clone)]
pub(crate) struct Meeting {
    pub(crate) first_query_row: usize,
    pub(crate) first_key_row: usize,
    pub(crate) queries: Range<usize>,
    pub(crate) keys: Range<usize>,
    pub(crate) relation: Relation,
}

impl Meeting {
    /// Row of its first query.
    pub(crate) fn query_row(&self) -> usize {
        self.first_query_row + self.queries.start
    }

    /// Row of its first key.
    pub(crate) fn key_row(&self) -> usize {
        self.first_key_row + self.keys.start
    }

    /// The keys that any of these queries may see; both count from the tile's first.
    pub(crate) fn seen(&self, sequences: &Sequences<'_>, queries: Range<usize>) -> Range<usize> {
        let first = self.queries.start;
        let queries = first + queries.start..first + queries.end;
        let visible = sequences.visible_to_any(self.first_query_row, &queries, self.keys.end);
        inside(&self.keys, visible)
    }

    /// The queries that may see any of these keys; both count from the tile's first.
    pub(crate) fn seeing(&self, sequences: &Sequences<'_>, keys: Range<usize>) -> Range<usize> {
        let first = self.keys.start;
        let keys = first + keys.start..first + keys.end;
        inside(&self.queries, sequences.seeing_any(self.first_query_row, &keys, &self.queries))
    }

    /// Of the scores, products over `k` elements.
    pub(crate) fn size(&self, k: usize) -> Size {
        Size { m: self.queries.len(), n: self.keys.len(), k }
    }
}

/// The part of a range that lies in a tile, counted from the tile's first.
fn inside(tile: &Range<usize>, range: Range<usize>) -> Range<usize> {
    let at = |t: usize| t.clamp(tile.start, tile.end) - tile.start;
    at(range.start)..at(range.end)
}

impl Sequences<'_> {
    /// The tiles of keys that queries of a sequence meet, in ascending order.
    pub(crate) fn meetings(
        &self,
        sequence: usize,
        queries: Range<usize>,
    ) -> impl Iterator<Item = Meeting> {
        let ((first, _), (_, count)) = (self.queries(sequence), self.keys(sequence));
        let visible = self.visible_to_any(first, &queries, count);
        tiles(visible, KEYS)
            .map(move |keys| self.meeting(sequence, queries.clone(), keys))
            .filter(|meeting| meeting.relation != Relation::Apart)
    }

    /// The tiles of queries that keys of a sequence meet, in ascending order.
    pub(crate) fn meetings_of_keys(
        &self,
        sequence: usize,
        keys: Range<usize>,
    ) -> impl Iterator<Item = Meeting> {
        let (first, count) = self.queries(sequence);
        let seeing = self.seeing_any(first, &keys, &(0..count));
        tiles(seeing, QUERIES)
            .map(move |queries| self.meeting(sequence, queries, keys.clone()))
            .filter(|meeting| meeting.relation != Relation::Apart)
    }

    fn meeting(&self, sequence: usize, queries: Range<usize>, keys: Range<usize>) -> Meeting {
        let (first_query_row, _) = self.queries(sequence);
        let (first_key_row, _) = self.keys(sequence);
        let of_queries = &self.q_segments[first_query_row..][queries.clone()];
        let of_keys = &self.kv_segments[first_key_row..][keys.clone()];
        let relation = Relation::of(of_queries, of_keys);
        Meeting { first_query_row, first_key_row, queries, keys, relation }
    }
}

/// The tiles of `size` that cover a range: they begin at multiples of `size`, so that where sums
/// are cut does not depend on the range.
pub(crate) fn tiles(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let first = range.start / size;
    let last = if range.is_empty() { first } else { range.end.div_ceil(size) };
    (first..last).map(move |i| i * size..range.end.min((i + 1) * size))
}
