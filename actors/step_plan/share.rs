//! One rank's share of a step: its runs, its lanes, and what they turn into.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use octet_kernels::collectives::{LaneStep, LaneTree};
use octet_kernels::graph::{ParameterId, Program, StepBufferId};
use octet_kernels::memory::Span;

use crate::contract::{Batch, Phase, ProgramId, StepShape, Workload};
use crate::rank_memory::Zero;
use crate::step_plan::work::{Keep, Load, Run, Work};
use crate::step_plan::{Whole, find_record, has_sums, records};

/// What a rank has to do with a step. Runs go by their position among all runs of the step.
pub(super) struct Share<'w> {
    pub(super) workload: &'w dyn Workload,
    pub(super) shape: &'w StepShape,
    pub(super) batch: Batch,
    pub(super) tree: LaneTree,
    pub(super) zero: Zero,
    /// The last phase that writes gradients.
    pub(super) last_phase: usize,
    /// Of all ranks.
    runs: Vec<Whole>,
    /// Those of this rank, in order.
    mine: Vec<usize>,
    lanes: Vec<LaneStep>,
    /// By lane of this rank: its runs that write gradients.
    gradient_runs: Vec<Vec<usize>>,
    records: Vec<(usize, ProgramId)>,
}

impl<'w> Share<'w> {
    pub(super) fn new(
        (workload, shape): (&'w dyn Workload, &'w StepShape),
        (batch, tree): (Batch, LaneTree),
        (rank, zero): (usize, Zero),
        runs: Vec<Whole>,
        last_phase: usize,
    ) -> Self {
        let own = tree.lanes_of(rank);
        let mine: Vec<usize> = (0..runs.len()).filter(|&r| own.contains(&runs[r].lane)).collect();
        let writes =
            |r: &usize| !workload.programs()[runs[*r].program.0].gradient_writes().is_empty();
        let mut gradient_runs = vec![Vec::new(); own.len()];
        for run in mine.iter().copied().filter(writes) {
            gradient_runs[runs[run].lane - own.start].push(run);
        }
        let (lanes, records) = (tree.steps_of(rank), records(workload, shape, &own));
        Self {
            workload,
            shape,
            batch,
            tree,
            zero,
            last_phase,
            runs,
            mine,
            lanes,
            gradient_runs,
            records,
        }
    }

    /// All phases of the step, with their numbers.
    pub(super) fn phases(&self) -> impl Iterator<Item = (usize, &'w Phase)> + use<'w> {
        self.shape.phases.iter().enumerate()
    }

    /// This rank's runs of a phase, in order.
    pub(super) fn runs_of(&self, phase: usize) -> impl Iterator<Item = usize> {
        self.mine.iter().copied().filter(move |&run| self.runs[run].phase == phase)
    }

    pub(super) fn buckets(&self) -> Range<usize> {
        0..self.workload.layout().buckets.len()
    }

    pub(super) fn sums_states(&self) -> bool {
        has_sums(self.workload.variables())
    }

    /// Rows of the metrics table: one for each run.
    pub(super) fn rows(&self) -> usize {
        self.mine.len()
    }

    fn program(&self, run: usize) -> &'w Program {
        &self.workload.programs()[self.runs[run].program.0]
    }

    /// Position of the run's lane among this rank's, if it writes gradients.
    fn lane_written(&self, run: usize) -> Option<usize> {
        let lane = self.runs[run].lane - self.lanes[0].lane;
        self.gradient_runs[lane].contains(&run).then_some(lane)
    }

    /// Programs that end the step.
    pub(super) fn finally(&self) -> impl Iterator<Item = Work> {
        self.shape.finally.iter().map(|&program| Work::Finally { program })
    }

    /// Whether the run writes gradients of the last lane in the last phase.
    pub(super) fn is_final(&self, run: usize) -> bool {
        let last_phase = self.runs[run].phase == self.last_phase;
        last_phase && self.lane_written(run) == Some(self.lanes.len() - 1)
    }

    /// Before the first run of a lane: gradients that none of its runs writes; and lanes before it
    /// that no run writes are zero, and complete.
    pub(super) fn zero_before(&self, run: usize) -> Vec<Work> {
        match self.lane_written(run) {
            Some(lane) if self.gradient_runs[lane][0] == run => {
                let empty = self.gradient_runs[..lane].iter().rev();
                let empty = empty.take_while(|runs| runs.is_empty()).count();
                let mut works = self.zero_lanes(lane - empty..lane);
                works.extend(self.zero_unwritten(lane));
                works
            }
            _ => Vec::new(),
        }
    }

    /// Behind the last phase that writes gradients: lanes that no run has written.
    pub(super) fn zero_rest(&self) -> Vec<Work> {
        let written = self.gradient_runs.iter().rposition(|runs| !runs.is_empty());
        self.zero_lanes(written.map_or(0, |lane| lane + 1)..self.lanes.len())
    }

    fn zero_lanes(&self, lanes: Range<usize>) -> Vec<Work> {
        lanes
            .flat_map(|lane| self.zero_unwritten(lane).into_iter().chain(self.fold(lane)))
            .collect()
    }

    fn zero_unwritten(&self, lane: usize) -> Option<Work> {
        let mut written = BTreeSet::new();
        for &run in &self.gradient_runs[lane] {
            written.extend(self.program(run).gradient_writes().iter().map(|w| w.0));
        }
        let all = self.workload.variables().parameters().iter().enumerate();
        let trainable = all.filter(|(_, p)| p.trainable).map(|(i, _)| ParameterId(i));
        let parameters: Vec<_> = trainable.filter(|id| !written.contains(id)).collect();
        let buffer = self.lanes[lane].buffer;
        (!parameters.is_empty()).then_some(Work::Zero { buffer, parameters })
    }

    /// Behind the last run of a lane: what it completes in the tree.
    pub(super) fn fold_after(&self, run: usize) -> Vec<Work> {
        match self.lane_written(run) {
            Some(lane) if self.gradient_runs[lane].last() == Some(&run) => self.fold(lane),
            _ => Vec::new(),
        }
    }

    /// The last lane is folded bucket by bucket instead.
    fn fold(&self, lane: usize) -> Vec<Work> {
        if lane + 1 == self.lanes.len() {
            return Vec::new();
        }
        self.folds(lane, 0..self.workload.layout().elements).collect()
    }

    /// What the last lane completes in the tree, of one bucket.
    pub(super) fn fold_last(&self, bucket: usize) -> impl Iterator<Item = Work> {
        let elements = self.workload.layout().buckets[bucket].elements.clone();
        self.folds(self.lanes.len() - 1, elements)
    }

    fn folds(&self, lane: usize, elements: Range<usize>) -> impl Iterator<Item = Work> {
        let folds = self.lanes[lane].folds.iter();
        folds.map(move |f| Work::Fold { into: f.into, from: f.from, elements: elements.clone() })
    }

    fn row(&self, run: usize) -> usize {
        self.mine.binary_search(&run).expect("a run of this rank")
    }

    pub(super) fn load(&self, run: usize) -> Work {
        let Whole { program, micro_batch, .. } = self.runs[run];
        let found = find_record(self.workload.programs(), &self.records, micro_batch, program);
        let record = found.expect("every run has a record");
        Work::Load(Load { program, micro_batch, record, row: self.row(run) })
    }

    /// All nodes of it.
    pub(super) fn run(&self, run: usize) -> Work {
        let Whole { program, micro_batch, slice, .. } = self.runs[run];
        let nodes = 0..self.program(run).nodes();
        let (buffer, first_in_lane) = match self.lane_written(run) {
            Some(lane) => (self.lanes[lane].buffer, self.first_in_lane(lane, run)),
            None => (0, Arc::default()),
        };
        let row = self.row(run);
        Work::Run(Run { program, micro_batch, slice, buffer, first_in_lane, row, nodes })
    }

    fn first_in_lane(&self, lane: usize, run: usize) -> Arc<[bool]> {
        let mut first = vec![true; self.workload.variables().parameters().len()];
        for &before in self.gradient_runs[lane].iter().take_while(|&&before| before != run) {
            for &(id, _) in self.program(before).gradient_writes() {
                first[id.0] = false;
            }
        }
        first.into()
    }

    pub(super) fn keep(&self, run: usize) -> Work {
        let Whole { program, micro_batch, slice, .. } = self.runs[run];
        Work::Keep(Keep { program, micro_batch, slice, row: self.row(run) })
    }

    /// All slices of the group, by the rank whose they are.
    pub(super) fn gather(&self, buffer: StepBufferId, group: &Range<usize>) -> Work {
        let bytes = self.workload.variables().step_buffers()[buffer.0].slice_bytes();
        let offset = self.workload.layout().step_buffers[buffer.0];
        let part = |rank| {
            let owned = self.batch.micro_batches_of(&self.tree.lanes_of(rank));
            let (start, end) = (owned.start.max(group.start), owned.end.min(group.end));
            let start = start.min(end);
            let first = start.saturating_sub(group.start);
            Span { offset: offset + first * bytes, bytes: (end - start) * bytes }
        };
        Work::Gather { parts: (0..self.tree.ranks()).map(part).collect() }
    }

    /// From the rank that owns the group's first micro-batch.
    pub(super) fn broadcast(&self, buffer: StepBufferId, group: &Range<usize>) -> Work {
        let lane = self.batch.lane_of(group.start);
        let owns = |&rank: &usize| self.tree.lanes_of(rank).contains(&lane);
        let root = (0..self.tree.ranks()).find(owns).expect("every lane has an owner");
        let bytes = self.workload.variables().step_buffers()[buffer.0].bytes();
        let span = Span { offset: self.workload.layout().step_buffers[buffer.0], bytes };
        Work::Broadcast { root, span }
    }
}
