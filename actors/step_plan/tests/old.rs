//! How a step plan was made by hand: phase by phase, lane by lane, bucket by bucket.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use octet_kernels::collectives::{LaneStep, LaneTree};
use octet_kernels::graph::{Layout, ParameterId, Program, StepBufferId};
use octet_kernels::memory::Span;
use octet_kernels::ops::Stream;

use crate::contract::{Batch, Phase, ProgramId, StepShape, Workload};
use crate::rank_memory::Zero;
use crate::step_plan::check::check_order;
use crate::step_plan::{
    Keep, Load, Run, Whole, Work, batch_of, find_record, has_sums, list_runs, records,
};

/// The plan of a rank as it was made by hand.
pub(super) fn entries_of(
    workload: &dyn Workload,
    shape: &StepShape,
    ranks: usize,
    rank: usize,
    zero: Zero,
) -> Vec<Entry> {
    let batch = batch_of(workload, shape).unwrap();
    let tree = LaneTree::new(batch.lanes, ranks).unwrap();
    let runs = list_runs(workload.programs(), shape, batch);
    let last_phase = check_order(&runs, workload.programs(), batch).unwrap();
    let records = records(workload, shape, &tree.lanes_of(rank));
    let mut planner =
        Planner::new(workload, (batch, tree), (rank, zero), runs, records, last_phase);
    for (i, phase) in shape.phases.iter().enumerate() {
        planner.phase(i, phase);
    }
    planner.finish()
}

/// A place in the order of a stream that the other stream can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Mark {
    /// A bucket's gradients on this rank have been written for the last time in this step.
    Final(usize),
    /// They are summed over ranks.
    Reduced(usize),
    /// This rank's shard of a bucket's parameters is updated.
    Updated(usize),
    /// A bucket's parameters are gathered: whoever reads them waits for this, in the next step too.
    Fresh(usize),
    /// What is exchanged at the `n`-th occasion of the step is written.
    Ready(usize),
    /// It is exchanged.
    Exchanged(usize),
    /// The step's integer states are counted on this rank.
    Counted,
    /// They are summed over ranks.
    Summed,
    /// Sums of squares of this rank's blocks are there.
    Squared,
    /// Those of all ranks are.
    Gathered,
}

/// One entry of the list: work in the order of its stream, behind the marks that it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// What is done.
    pub work: Work,
    /// Where.
    pub stream: Stream,
    /// Marks of the other stream that must have been passed.
    pub after: Vec<Mark>,
    /// Marks that are passed with it.
    pub signals: Vec<Mark>,
}

pub(super) struct Planner<'w> {
    workload: &'w dyn Workload,
    batch: Batch,
    tree: LaneTree,
    rank: usize,
    zero: Zero,
    runs: Vec<Whole>,
    records: Vec<(usize, ProgramId)>,
    last_phase: usize,
    lanes: Vec<LaneStep>,
    next_lane: usize,
    next_bucket: usize,
    /// By bucket: the run (of this rank's last lane) and the number of its nodes after which this
    /// bucket and all before it are final.
    finals: Vec<(usize, usize)>,
    /// By bucket: whether compute is behind the gather of its parameters.
    fresh: Vec<bool>,
    /// What the next compute entry waits for.
    waits: Vec<Mark>,
    entries: Vec<Entry>,
    rows: usize,
    occasions: usize,
}

impl<'w> Planner<'w> {
    pub(super) fn new(
        workload: &'w dyn Workload,
        (batch, tree): (Batch, LaneTree),
        (rank, zero): (usize, Zero),
        runs: Vec<Whole>,
        records: Vec<(usize, ProgramId)>,
        last_phase: usize,
    ) -> Self {
        let buckets = workload.layout().buckets.len();
        let mut planner = Self {
            workload,
            batch,
            tree,
            rank,
            zero,
            runs,
            records,
            last_phase,
            lanes: tree.steps_of(rank),
            next_lane: 0,
            next_bucket: 0,
            finals: Vec::new(),
            fresh: vec![zero == Zero::Zero0; buckets],
            waits: Vec::new(),
            entries: Vec::new(),
            rows: 0,
            occasions: 0,
        };
        planner.finals = planner.bucket_finals();
        planner.compute(Work::Begin);
        planner
    }

    fn layout(&self) -> &'w Layout {
        self.workload.layout()
    }

    fn program(&self, id: ProgramId) -> &'w Program {
        &self.workload.programs()[id.0]
    }

    fn compute(&mut self, work: Work) {
        let (after, signals) = (std::mem::take(&mut self.waits), Vec::new());
        self.entries.push(Entry { work, stream: Stream::Compute, after, signals });
    }

    /// Adds work of the communication stream, behind all compute so far.
    fn communicate(&mut self, work: Work, ready: Mark, done: Mark) {
        let compute = |entry: &&mut Entry| entry.stream == Stream::Compute;
        let last = self.entries.iter_mut().rev().find(compute).expect("a step begins with one");
        last.signals.push(ready);
        let (after, signals) = (vec![ready], vec![done]);
        self.entries.push(Entry { work, stream: Stream::Communication, after, signals });
    }

    /// Likewise, and compute goes on only behind it.
    fn exchange(&mut self, work: Work) {
        let occasion = self.occasions;
        self.occasions += 1;
        self.communicate(work, Mark::Ready(occasion), Mark::Exchanged(occasion));
        self.waits.push(Mark::Exchanged(occasion));
    }

    fn mine(&self, run: usize) -> bool {
        self.tree.lanes_of(self.rank).contains(&self.runs[run].lane)
    }

    fn writes(&self, run: usize) -> bool {
        !self.program(self.runs[run].program).gradient_writes().is_empty()
    }

    fn gradient_runs_of(&self, lane: usize) -> Vec<usize> {
        let of_lane = |&r: &usize| self.runs[r].lane == lane && self.writes(r);
        (0..self.runs.len()).filter(of_lane).collect()
    }

    fn bucket_finals(&self) -> Vec<(usize, usize)> {
        let lane = self.lanes.last().expect("a rank owns a lane").lane;
        let mut finals = vec![(0, 0); self.layout().buckets.len()];
        for run in self.gradient_runs_of(lane) {
            for &(id, node) in self.program(self.runs[run].program).gradient_writes() {
                for bucket in self.layout().buckets_of(id) {
                    finals[bucket] = finals[bucket].max((run, node + 1));
                }
            }
        }
        let mut latest = (0, 0);
        for one in &mut finals {
            latest = latest.max(*one);
            *one = latest;
        }
        finals
    }

    pub(super) fn phase(&mut self, index: usize, phase: &Phase) {
        match phase {
            Phase::Each { .. } | Phase::Once { .. } => {
                for run in 0..self.runs.len() {
                    if self.runs[run].phase == index && self.mine(run) {
                        self.run(run);
                    }
                }
            }
            Phase::Gather { buffer, micro_batches } => {
                let parts = (0..self.tree.ranks())
                    .map(|rank| self.slices(*buffer, micro_batches, rank))
                    .collect();
                self.exchange(Work::Gather { parts });
            }
            Phase::Broadcast { buffer, micro_batches } => {
                let lane = self.batch.lane_of(micro_batches.start);
                let owns = |&rank: &usize| self.tree.lanes_of(rank).contains(&lane);
                let root = (0..self.tree.ranks()).find(owns).expect("every lane has an owner");
                let bytes = self.workload.variables().step_buffers()[buffer.0].bytes();
                let span = Span { offset: self.layout().step_buffers[buffer.0], bytes };
                self.exchange(Work::Broadcast { root, span });
            }
        }
        if index == self.last_phase {
            self.open_lanes_before(usize::MAX);
            self.reduce_until((usize::MAX, usize::MAX));
        }
    }

    /// What follows the phases: sums, norm, update, and the gather of fresh parameters.
    pub(super) fn finish(mut self) -> Vec<Entry> {
        let buckets = self.layout().buckets.len();
        if has_sums(self.workload.variables()) {
            // Compute comes behind it with the gather of the squares.
            self.communicate(Work::SumStates, Mark::Counted, Mark::Summed);
        }
        self.waits.extend((0..buckets).map(Mark::Reduced));
        // The update must not overtake the gather of the step before.
        self.wait_for_parameters(0..buckets);
        self.compute(Work::Squares);
        self.communicate(Work::GatherSquares, Mark::Squared, Mark::Gathered);
        self.waits.push(Mark::Gathered);
        self.compute(Work::Decide);
        for bucket in 0..buckets {
            self.compute(Work::Update { bucket });
            if self.zero == Zero::Zero1 {
                let gather = Work::GatherParameters { bucket };
                self.communicate(gather, Mark::Updated(bucket), Mark::Fresh(bucket));
            }
        }
        self.entries
    }

    fn slices(&self, buffer: StepBufferId, group: &Range<usize>, rank: usize) -> Span {
        let owned = self.batch.micro_batches_of(&self.tree.lanes_of(rank));
        let (start, end) = (owned.start.max(group.start), owned.end.min(group.end));
        let bytes = self.workload.variables().step_buffers()[buffer.0].slice_bytes();
        let start = start.min(end);
        let offset = self.layout().step_buffers[buffer.0];
        let first = start.saturating_sub(group.start);
        Span { offset: offset + first * bytes, bytes: (end - start) * bytes }
    }

    fn run(&mut self, index: usize) {
        let whole = self.runs[index];
        let nodes = self.program(whole.program).nodes();
        if !self.writes(index) {
            self.load(whole);
            self.nodes(whole, 0, Arc::default(), 0..nodes);
            self.keep(whole);
            return;
        }
        self.open_lanes_before(whole.lane);
        let lane = self.lanes[self.next_lane].clone();
        let of_lane = self.gradient_runs_of(whole.lane);
        if of_lane[0] == index {
            self.zero_unwritten(&lane, &of_lane);
        }
        let first = self.first_in_lane(&of_lane, index);
        let final_lane = self.next_lane + 1 == self.lanes.len();
        self.load(whole);
        let mut done = 0;
        if final_lane && whole.phase == self.last_phase {
            while let Some(&(run, end)) = self.finals.get(self.next_bucket) {
                if run > index {
                    break;
                }
                let end = if run == index { end } else { done };
                if end > done {
                    self.nodes(whole, lane.buffer, first.clone(), done..end);
                    done = end;
                }
                // Buckets that an earlier phase finished are reduced at the first chance.
                self.reduce_until((index, end));
            }
        }
        self.nodes(whole, lane.buffer, first, done..nodes);
        self.keep(whole);
        if of_lane.last() == Some(&index) {
            self.close_lane();
        }
    }

    /// Lanes before `lane` that no run writes are all zero.
    fn open_lanes_before(&mut self, lane: usize) {
        while let Some(step) = self.lanes.get(self.next_lane).cloned()
            && step.lane < lane
        {
            if self.gradient_runs_of(step.lane).is_empty() {
                self.zero_unwritten(&step, &[]);
            }
            self.close_lane();
        }
    }

    fn close_lane(&mut self) {
        let step = self.lanes[self.next_lane].clone();
        self.next_lane += 1;
        // The last lane is folded bucket by bucket, as they become final.
        if self.next_lane < self.lanes.len() {
            for fold in step.folds {
                let elements = 0..self.layout().elements;
                self.compute(Work::Fold { into: fold.into, from: fold.from, elements });
            }
        }
    }

    fn reduce_until(&mut self, point: (usize, usize)) {
        while let Some(&at) = self.finals.get(self.next_bucket)
            && at <= point
        {
            let bucket = self.next_bucket;
            let elements = self.layout().buckets[bucket].elements.clone();
            for fold in self.lanes[self.lanes.len() - 1].folds.clone() {
                let elements = elements.clone();
                self.compute(Work::Fold { into: fold.into, from: fold.from, elements });
            }
            self.communicate(Work::Reduce { bucket }, Mark::Final(bucket), Mark::Reduced(bucket));
            self.next_bucket += 1;
        }
    }

    fn zero_unwritten(&mut self, lane: &LaneStep, runs: &[usize]) {
        let mut written = BTreeSet::new();
        for &run in runs {
            let program = self.program(self.runs[run].program);
            written.extend(program.gradient_writes().iter().map(|w| w.0));
        }
        let all = self.workload.variables().parameters().iter().enumerate();
        let trainable = all.filter(|(_, p)| p.trainable).map(|(i, _)| ParameterId(i));
        let parameters: Vec<ParameterId> = trainable.filter(|id| !written.contains(id)).collect();
        if !parameters.is_empty() {
            self.compute(Work::Zero { buffer: lane.buffer, parameters });
        }
    }

    fn first_in_lane(&self, of_lane: &[usize], index: usize) -> Arc<[bool]> {
        let mut first = vec![true; self.workload.variables().parameters().len()];
        for &run in of_lane.iter().take_while(|&&run| run != index) {
            for &(id, _) in self.program(self.runs[run].program).gradient_writes() {
                first[id.0] = false;
            }
        }
        first.into()
    }

    fn load(&mut self, whole: Whole) {
        let Whole { program, micro_batch, .. } = whole;
        let found = find_record(self.workload.programs(), &self.records, micro_batch, program);
        let record = found.expect("every run has a record");
        self.compute(Work::Load(Load { program, micro_batch, record }));
    }

    fn keep(&mut self, whole: Whole) {
        let Whole { program, micro_batch, slice, .. } = whole;
        let row = self.rows;
        self.rows += 1;
        self.compute(Work::Keep(Keep { program, micro_batch, slice, row }));
    }

    /// Runs nodes, in stretches: one ends before the first node that reads parameters that may
    /// still be travelling, and before and after a node that meets other devices.
    fn nodes(&mut self, whole: Whole, buffer: usize, first: Arc<[bool]>, nodes: Range<usize>) {
        let Whole { program: id, micro_batch, slice, .. } = whole;
        let program = self.program(id);
        let piece = |nodes| {
            let first_in_lane = first.clone();
            Work::Run(Run { program: id, micro_batch, slice, buffer, first_in_lane, nodes })
        };
        let all_reads = first_reads(program);
        let reads = all_reads.iter().map(|&(_, node)| node);
        let mut stops: Vec<usize> = reads.chain(program.meetings().iter().copied()).collect();
        stops.retain(|node| nodes.contains(node));
        stops.sort_unstable();
        stops.dedup();
        let mut done = nodes.start;
        for stop in stops {
            let read = all_reads.iter().filter(|read| read.1 == stop);
            let buckets: Vec<usize> = read
                .flat_map(|&(parameter, _)| self.layout().buckets_of(parameter))
                .filter(|&bucket| !self.fresh[bucket])
                .collect();
            let meets = program.meetings().contains(&stop);
            if (meets || !buckets.is_empty()) && stop > done {
                self.compute(piece(done..stop));
                done = stop;
            }
            self.wait_for_parameters(buckets);
            if meets {
                self.exchange(piece(stop..stop + 1));
                done = stop + 1;
            }
        }
        if done < nodes.end {
            self.compute(piece(done..nodes.end));
        }
    }

    fn wait_for_parameters(&mut self, buckets: impl IntoIterator<Item = usize>) {
        for bucket in buckets {
            if !std::mem::replace(&mut self.fresh[bucket], true) {
                self.waits.push(Mark::Fresh(bucket));
            }
        }
    }
}

/// Every parameter that a program reads, with the first node that does.
fn first_reads(program: &Program) -> Vec<(ParameterId, usize)> {
    let mut first: Vec<(ParameterId, usize)> = Vec::new();
    for access in program.accesses().iter().filter(|access| !access.gradient) {
        if first.iter().all(|read| read.0 != access.parameter) {
            first.push((access.parameter, access.node));
        }
    }
    first
}
