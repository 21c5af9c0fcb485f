//! The arena of one rank: every region, by reason. What `octet plan` prints is what a run takes.
//!
//! Owns the layout of the regions; the bytes belong to the rank's device thread. Regions are sized
//! for the rank that needs most of each, so that they lie at the same offset on all ranks: a peer
//! addresses them by its own plan. Only metrics, which nobody else reads and which come last, are
//! as large as this rank's own steps need.

use std::ops::Range;

use octet_kernels::collectives::{JoinTree, LaneTree, Piece, all_reduce_staging};
use octet_kernels::device::{Decision, Event, Events};
use octet_kernels::error::{Error, Result};
use octet_kernels::graph::{ARGUMENT_BYTES, Layout, Ownership, State, StateUse};
use octet_kernels::memory::{ArenaPlan, Span};
use octet_kernels::update::Plane;

use crate::contract::Workload;
use crate::outcome::ROUNDS;
use crate::step_plan::{StepPlan, check_meetings};

mod norm;
#[cfg(test)]
mod tests;

pub use norm::NormLayout;

/// Which rank keeps which part of the optimizer state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Zero {
    /// Every rank keeps and updates everything.
    Zero0,
    /// Every rank keeps and updates its shard of every bucket.
    #[default]
    Zero1,
}

impl Zero {
    /// Its number, as the literature counts.
    pub const fn stage(self) -> u8 {
        match self {
            Self::Zero0 => 0,
            Self::Zero1 => 1,
        }
    }
}

/// Records that a rank's device holds: one is read while the next comes in.
pub const INPUTS: usize = 2;

/// Scalars are kept in words of four bytes, `F32` or `I32`.
pub const METRIC_BYTES: usize = 4;

/// Where one rank's regions lie.
#[derive(Debug, Clone)]
pub struct RankMemory {
    /// All regions, for tables and for the allocation.
    pub arena: ArenaPlan,
    /// Number of ranks.
    pub ranks: usize,
    /// This rank.
    pub rank: usize,
    /// Placement of the optimizer state.
    pub zero: Zero,
    /// The tree of lane sums.
    pub tree: LaneTree,
    /// What every rank is left with when its lanes are folded, in the order of the tree.
    pub pieces: Vec<Piece>,
    /// How those are summed.
    pub join_tree: JoinTree,
    /// How often ranks meet to bring them together.
    pub rounds: usize,
    /// Columns of the metrics table: the most scalars that a program fetches.
    pub columns: usize,
    /// By bucket: the flat elements whose optimizer state this rank keeps.
    pub kept: Vec<Range<usize>>,
    /// By bucket: where those start in the master weights and state vectors.
    pub kept_at: Vec<usize>,
    /// Who owns what.
    pub owners: Ownership,
    /// Marks of a step's plan, at most.
    pub marks: usize,
    /// What a step does on the communication stream, at most.
    pub calls: usize,
    /// Where the sums behind the norm lie within their region.
    pub norm: NormLayout,
    pub(crate) parameters: Span,
    pub(crate) masters: Span,
    /// What the optimizer stores beside them.
    pub planes: Vec<(Plane, Span)>,
    pub(crate) gradients: Vec<Span>,
    pub(crate) states: Span,
    pub(crate) step: Span,
    pub(crate) input: [Span; INPUTS],
    pub(crate) activations: Span,
    /// Where libraries of the device work; nothing on the CPU.
    pub libraries: Span,
    pub(crate) staging: Span,
    pub(crate) norm_sums: Span,
    pub(crate) norm_order: Span,
    pub(crate) decision: Span,
    pub(crate) fingerprints: Span,
    pub(crate) metrics: Span,
    pub(crate) arguments: [Span; INPUTS],
}

impl RankMemory {
    /// Plans the arena of `rank` of `ranks`.
    ///
    /// # Errors
    /// From the lane tree and the step plan: ranks, lanes and phases that do not fit together.
    pub fn new(workload: &dyn Workload, ranks: usize, rank: usize, zero: Zero) -> Result<Self> {
        let (layout, programs) = (workload.layout(), workload.programs());
        let tree = LaneTree::new(workload.batch().lanes, ranks)?;
        let owners = workload.ownership(ranks);
        let (kept, kept_at) = kept(layout, &owners, rank, zero);
        let kept_elements = match zero {
            Zero::Zero0 => layout.elements,
            Zero::Zero1 => (0..ranks).map(|rank| owners.elements(rank)).max().unwrap_or(0),
        };
        let narrow = layout.buckets.iter().any(|b| b.dtype.is_narrow());
        let Most { rows, marks, calls } = Most::new(workload, ranks, rank, zero)?;
        let norm = NormLayout::new(layout, &owners, ranks);
        let planes = planes(workload)?;
        let columns = programs.iter().map(scalars).max().unwrap_or(0);
        let largest = |f: fn(&octet_kernels::graph::Program) -> usize| {
            programs.iter().map(f).max().unwrap_or(0)
        };
        let mut arena = ArenaPlan::new();
        let masters = if narrow { kept_elements * size_of::<f32>() } else { 0 };
        Ok(Self {
            ranks,
            rank,
            zero,
            tree,
            pieces: tree.pieces(),
            join_tree: tree.join_tree(),
            rounds: tree.rounds(),
            columns,
            kept,
            kept_at,
            marks,
            calls,
            parameters: arena.reserve("parameters", layout.parameter_bytes),
            masters: arena.reserve("master weights", masters),
            planes: planes
                .into_iter()
                .map(|plane| (plane, arena.reserve(plane.title(), plane.bytes(kept_elements))))
                .collect(),
            gradients: (0..tree.max_buffers())
                .map(|i| arena.reserve(format!("gradients {i}"), layout.elements * 4))
                .collect(),
            states: arena.reserve("states", layout.state_bytes),
            step: arena.reserve("step buffers", layout.step_bytes),
            input: [0, 1]
                .map(|i| arena.reserve(format!("input record {i}"), largest(|p| p.input_bytes))),
            activations: arena.reserve("activations", largest(|p| p.activation_bytes)),
            libraries: arena.reserve("library workspace", largest(|p| p.target.library_bytes())),
            staging: arena.reserve("staging", staging_bytes(workload, &owners, &tree)),
            norm_sums: arena.reserve("norm", norm.bytes()),
            norm_order: arena.reserve("norm order", size_of_val(&norm.order[..])),
            decision: arena.reserve("decision", size_of::<Decision>()),
            fingerprints: arena.reserve("fingerprints", (layout.buckets.len() + 1) * 8),
            arguments: [0, 1].map(|i| arena.reserve(format!("run arguments {i}"), ARGUMENT_BYTES)),
            metrics: arena.reserve("metrics", rows * columns * METRIC_BYTES),
            norm,
            owners,
            arena,
        })
    }

    /// Where kept elements of a bucket lie in the master weights and state vectors.
    pub(crate) fn kept_place(&self, bucket: usize, elements: &Range<usize>) -> usize {
        self.kept_at[bucket] + elements.start - self.kept[bucket].start
    }

    /// Events of the device: the marks of plans; behind the outcome of each round; around a
    /// snapshot, and around each call on the communication stream.
    pub fn events(&self) -> Events {
        let timed = 2 + ROUNDS * 2 * self.calls;
        Events { all: self.marks + ROUNDS + timed, timed }
    }

    /// Passed when a round's outcome has been copied out.
    pub(crate) fn outcome_event(&self, round: usize) -> Event {
        Event(self.marks + round)
    }

    /// Before and behind a snapshot.
    pub(crate) fn snapshot_events(&self) -> [Event; 2] {
        let first = self.marks + ROUNDS;
        [Event(first), Event(first + 1)]
    }

    /// Before and behind a round's n-th call on the communication stream.
    pub(crate) fn call_events(&self, round: usize, call: usize) -> [Event; 2] {
        let first = self.marks + ROUNDS + 2 + 2 * (round * self.calls + call);
        [Event(first), Event(first + 1)]
    }

    /// The overflow flag: the low word of this rank's last cell among the sums.
    pub(crate) fn overflow(&self) -> Span {
        self.norm_sums.part(self.norm.flags[self.rank] * size_of::<f64>(), size_of::<i32>())
    }

    /// The cell of a bucket's fingerprint; shards of other ranks have one that nobody reads.
    pub(crate) fn fingerprint(&self, bucket: usize, own: bool) -> Span {
        let cell = if own { bucket } else { self.kept.len() };
        self.fingerprints.part(cell * size_of::<u64>(), size_of::<u64>())
    }

    /// Cells of the region of sums.
    pub(crate) fn norm_cells(&self, cells: &Range<usize>) -> Span {
        self.norm_sums.part(cells.start * size_of::<f64>(), cells.len() * size_of::<f64>())
    }
}

/// By bucket: the elements whose optimizer state a rank keeps, and where those start.
fn kept(
    layout: &Layout,
    owners: &Ownership,
    rank: usize,
    zero: Zero,
) -> (Vec<Range<usize>>, Vec<usize>) {
    let mut next = 0;
    let of_bucket = |bucket: usize| {
        let range = match zero {
            Zero::Zero0 => layout.buckets[bucket].elements.clone(),
            Zero::Zero1 => owners.shard(bucket, rank),
        };
        next += range.len();
        (range.clone(), next - range.len())
    };
    (0..layout.buckets.len()).map(of_bucket).unzip()
}

/// What the optimizer stores: items for whole blocks.
fn planes(workload: &dyn Workload) -> Result<Vec<Plane>> {
    let (planes, block) = (workload.optimizer().planes(), workload.layout().block);
    match planes.iter().find(|plane| !block.is_multiple_of(plane.elements)) {
        Some(Plane { elements, .. }) => {
            Err(Error::Plan(format!("blocks of {block} elements, scales of {elements}")))
        }
        None => Ok(planes),
    }
}

/// The most of what any step of a rank has.
#[derive(Default)]
struct Most {
    rows: usize,
    marks: usize,
    calls: usize,
}

impl Most {
    fn new(workload: &dyn Workload, ranks: usize, rank: usize, zero: Zero) -> Result<Self> {
        let mut most = Self::default();
        for shape in &workload.shapes() {
            let [mine, first] = [rank, 0].map(|r| StepPlan::new(workload, shape, ranks, r, zero));
            let mine = mine?;
            check_meetings(&mine, &first?)?;
            most.rows = most.rows.max(mine.rows);
            most.marks = most.marks.max(mine.marks);
            most.calls = most.calls.max(mine.meetings().count());
        }
        let snapshot = StepPlan::snapshot(workload, ranks, rank, zero)?;
        most.marks = most.marks.max(snapshot.marks);
        Ok(most)
    }
}

/// Number of scalars of four bytes that a program fetches.
pub fn scalars(program: &octet_kernels::graph::Program) -> usize {
    program.fetches().filter(|(_, spec)| spec.bytes() == METRIC_BYTES).count()
}

/// The pieces of a shard that other ranks send, for the rank and bucket where they take most; or
/// what they send of the largest step sum.
fn staging_bytes(workload: &dyn Workload, owners: &Ownership, tree: &LaneTree) -> usize {
    let (buckets, states) = (workload.layout().buckets.len(), workload.variables().states());
    let pieces = tree.pieces();
    let foreign = |rank: usize| pieces.iter().filter(|piece| piece.rank != rank).count();
    let shard = |rank| (0..buckets).map(|b| owners.shard(b, rank).len()).max().unwrap_or(0);
    let staged = (0..tree.ranks()).map(|rank| foreign(rank) * shard(rank)).max().unwrap_or(0);
    let sums = states.iter().filter(|state| state.usage == StateUse::StepSum);
    let bytes = |state: &State| all_reduce_staging(state.bytes(), state.dtype, tree.ranks());
    (staged * size_of::<f32>()).max(sums.map(bytes).max().unwrap_or(0))
}
