//! The arena of one rank: every region, by reason. What `octet plan` prints is what a run takes.
//!
//! Owns the layout of the regions; the bytes belong to the rank's device thread.

use std::ops::Range;

use octet_kernels::collectives::{JoinTree, LaneTree, Piece, all_reduce_staging};
use octet_kernels::error::Result;
use octet_kernels::graph::{Bindings, Layout, State, StateUse};
use octet_kernels::memory::{Arena, ArenaPlan, DeviceSlice, Span};

use crate::contract::Workload;
use crate::step_plan::StepPlan;

/// Which rank keeps which part of the optimizer state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Zero {
    /// Every rank keeps and updates everything.
    Zero0,
    /// Every rank keeps and updates its shard of every bucket.
    #[default]
    Zero1,
}

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
    /// By bucket: where those start in the master weights and moments.
    pub kept_at: Vec<usize>,
    pub(crate) parameters: Span,
    pub(crate) masters: Span,
    pub(crate) first_moment: Span,
    pub(crate) second_moment: Span,
    pub(crate) gradients: Vec<Span>,
    pub(crate) states: Span,
    pub(crate) step: Span,
    pub(crate) input: Span,
    pub(crate) activations: Span,
    /// Where libraries of the device work; nothing on the CPU.
    pub libraries: Span,
    pub(crate) staging: Span,
    pub(crate) norm: Span,
    pub(crate) metrics: Span,
    pub(crate) overflow: Span,
}

impl RankMemory {
    /// Plans the arena of `rank` of `ranks`.
    ///
    /// # Errors
    /// From the lane tree and the step plan: ranks, lanes and phases that do not fit together.
    pub fn new(workload: &dyn Workload, ranks: usize, rank: usize, zero: Zero) -> Result<Self> {
        let (layout, programs) = (workload.layout(), workload.programs());
        let tree = LaneTree::new(workload.batch().lanes, ranks)?;
        let kept: Vec<_> = (0..layout.buckets.len())
            .map(|bucket| match zero {
                Zero::Zero0 => layout.buckets[bucket].elements.clone(),
                Zero::Zero1 => layout.shard(bucket, rank, ranks),
            })
            .collect();
        let mut kept_elements = 0;
        let kept_at = kept
            .iter()
            .map(|range| {
                kept_elements += range.len();
                kept_elements - range.len()
            })
            .collect();
        let narrow = layout.buckets.iter().any(|b| b.dtype.is_narrow());
        let shapes = workload.shapes();
        let rows = shapes
            .iter()
            .map(|shape| Ok(StepPlan::new(workload, shape, ranks, rank)?.rows))
            .collect::<Result<Vec<_>>>()?;
        let rows = rows.into_iter().max().unwrap_or(0);
        let columns = programs.iter().map(scalars).max().unwrap_or(0);
        let largest = |f: fn(&octet_kernels::graph::Program) -> usize| {
            programs.iter().map(f).max().unwrap_or(0)
        };
        let mut arena = ArenaPlan::new();
        let moments = kept_elements * size_of::<f32>();
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
            parameters: arena.reserve("parameters", layout.parameter_bytes),
            masters: arena.reserve("master weights", if narrow { moments } else { 0 }),
            first_moment: arena.reserve("first moment", moments),
            second_moment: arena.reserve("second moment", moments),
            gradients: (0..tree.buffers(rank))
                .map(|i| arena.reserve(format!("gradients {i}"), layout.elements * 4))
                .collect(),
            states: arena.reserve("states", layout.state_bytes),
            step: arena.reserve("step buffers", layout.step_bytes),
            input: arena.reserve("input record", largest(|p| p.input_bytes)),
            activations: arena.reserve("activations", largest(|p| p.activation_bytes)),
            libraries: arena.reserve("library workspace", largest(|p| p.target.library_bytes())),
            staging: arena.reserve("staging", staging_bytes(workload, &tree, rank)),
            norm: arena.reserve("norm", norm_bytes(layout, ranks)),
            metrics: arena.reserve("metrics", rows * columns * METRIC_BYTES),
            overflow: arena.reserve("overflow flag", size_of::<i32>()),
            arena,
        })
    }

    /// What a program's run is given; gradients go to `buffer`.
    pub fn bindings(&self, arena: &Arena, buffer: usize) -> Bindings {
        Bindings {
            parameters: arena.slice(self.parameters),
            gradients: arena.slice(self.gradients[buffer]),
            states: arena.slice(self.states),
            step: arena.slice(self.step),
            input: arena.slice(self.input),
            activations: arena.slice(self.activations),
            overflow: arena.slice(self.overflow),
        }
    }

    /// Flat `F32` elements of a gradient buffer.
    pub fn gradient(&self, arena: &Arena, buffer: usize, elements: &Range<usize>) -> DeviceSlice {
        let span = self.gradients[buffer].part(elements.start * 4, elements.len() * 4);
        arena.slice(span)
    }

    /// A kept part of a vector of optimizer state: `elements` of bucket `bucket`.
    pub(crate) fn kept_part(
        &self,
        arena: &Arena,
        vector: Span,
        bucket: usize,
        elements: &Range<usize>,
    ) -> DeviceSlice {
        let first = self.kept_at[bucket] + elements.start - self.kept[bucket].start;
        arena.slice(vector.part(first * 4, elements.len() * 4))
    }
}

/// Number of scalars of four bytes that a program fetches.
pub fn scalars(program: &octet_kernels::graph::Program) -> usize {
    program.fetches().filter(|(_, spec)| spec.bytes() == METRIC_BYTES).count()
}

/// The pieces of a shard that other ranks send, for the bucket where they take most; or what they
/// send of the largest step sum.
fn staging_bytes(workload: &dyn Workload, tree: &LaneTree, rank: usize) -> usize {
    let (layout, states) = (workload.layout(), workload.variables().states());
    let foreign = tree.pieces().iter().filter(|piece| piece.rank != rank).count();
    let shard = (0..layout.buckets.len())
        .map(|bucket| layout.shard(bucket, rank, tree.ranks()).len())
        .max()
        .unwrap_or(0);
    let sums = states.iter().filter(|state| state.usage == StateUse::StepSum);
    let bytes = |state: &State| all_reduce_staging(state.bytes(), state.dtype, tree.ranks());
    (foreign * shard * size_of::<f32>()).max(sums.map(bytes).max().unwrap_or(0))
}

/// One f64 per block, and one per rank for its overflow flag.
fn norm_bytes(layout: &Layout, ranks: usize) -> usize {
    (layout.blocks() + ranks) * size_of::<f64>()
}
