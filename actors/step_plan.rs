//! What one rank does in one step, as a flat list: every run, every fold of gradient buffers, every
//! collective, and with them the point at which each bucket is final.
//!
//! A pure function of the recipe, the shape of the step and the number of ranks. All ranks list the
//! same collectives in the same order; the list is issued from one thread, so no order can differ.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use octet_kernels::collectives::{LaneStep, LaneTree};
use octet_kernels::error::{Error, Result};
use octet_kernels::graph::{Layout, ParameterId, Program, StateUse, StepBufferId, Variables};
use octet_kernels::memory::Span;

use crate::contract::{Batch, Phase, ProgramId, StepShape, Workload};
use crate::step_plan::check::{check_order, check_sharing};

mod check;
#[cfg(test)]
mod tests;

/// A stretch of one program over one micro-batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The program.
    pub program: ProgramId,
    /// The micro-batch within the step; for a group's program, the group's first.
    pub micro_batch: usize,
    /// Which record of the rank's slot is its input.
    pub record: usize,
    /// Position in its group: which slice of the step buffers it is.
    pub slice: usize,
    /// The gradient buffer of its lane.
    pub buffer: usize,
    /// By parameter: whether this run is the lane's first to write that gradient.
    pub first_in_lane: Arc<[bool]>,
    /// The nodes to run.
    pub nodes: Range<usize>,
    /// Copy the record in before.
    pub load: bool,
    /// Keep the fetched scalars afterwards, in this row of the metrics table.
    pub row: Option<usize>,
}

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Zero the step's sums and the overflow flag.
    Begin,
    /// Zero gradients that no run of a lane writes.
    Zero {
        /// The lane's gradient buffer.
        buffer: usize,
        /// Whose gradients.
        parameters: Vec<ParameterId>,
    },
    /// Run nodes.
    Run(Run),
    /// Gradient buffer `into += from`: two complete subtrees of lanes become one.
    Fold {
        /// The earlier lanes.
        into: usize,
        /// The later lanes.
        from: usize,
        /// Elements of the flat gradient.
        elements: Range<usize>,
    },
    /// All-gather within the step region.
    Gather {
        /// By rank.
        parts: Vec<Span>,
    },
    /// Broadcast within the step region.
    Broadcast {
        /// Who has it.
        root: usize,
        /// Where it lies on every rank.
        span: Span,
    },
    /// The bucket's final write has been issued: sum it over ranks.
    Reduce {
        /// The bucket.
        bucket: usize,
    },
    /// Sum the step's integer states over ranks.
    SumStates,
}

/// The list of one rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepPlan {
    /// In order of issue.
    pub entries: Vec<Entry>,
    /// Programs to run after an applied update.
    pub finally: Vec<ProgramId>,
    /// Rows of the metrics table that the runs fill.
    pub rows: usize,
}

impl StepPlan {
    /// Plans a step for `rank` of `ranks`.
    ///
    /// # Errors
    /// [`Error::Plan`] when the shape cannot be run in lane order, trains nothing, lets ranks
    /// disagree, or exceeds a step buffer.
    pub fn new(
        workload: &dyn Workload,
        shape: &StepShape,
        ranks: usize,
        rank: usize,
    ) -> Result<Self> {
        let batch = batch_of(workload, shape)?;
        let tree = LaneTree::new(batch.lanes, ranks)?;
        let runs = list_runs(workload.programs(), shape, batch);
        check_sharing(workload, shape, &runs)?;
        let last_phase = check_order(&runs, workload.programs(), batch)?;
        let mut planner = Planner {
            workload,
            batch,
            tree,
            rank,
            records: records(workload, shape, &tree.lanes_of(rank)),
            runs,
            last_phase,
            lanes: tree.steps_of(rank),
            next_lane: 0,
            next_bucket: 0,
            finals: Vec::new(),
            plan: Self { entries: vec![Entry::Begin], finally: shape.finally.clone(), rows: 0 },
        };
        planner.finals = planner.bucket_finals();
        for (i, phase) in shape.phases.iter().enumerate() {
            planner.phase(i, phase);
        }
        if has_sums(workload.variables()) {
            planner.plan.entries.push(Entry::SumStates);
        }
        Ok(planner.plan)
    }

    /// The runs, in order.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.entries.iter().filter_map(|e| if let Entry::Run(run) = e { Some(run) } else { None })
    }
}

/// How a step of this shape is cut.
fn batch_of(workload: &dyn Workload, shape: &StepShape) -> Result<Batch> {
    let (largest, count) = (workload.batch(), shape.micro_batches);
    if count == 0 || count % largest.lanes != 0 || count > largest.micro_batches() {
        return Err(Error::Plan(format!(
            "a step of {count} micro-batches in {} lanes, at most {}",
            largest.lanes,
            largest.micro_batches()
        )));
    }
    Ok(largest.with_micro_batches(count))
}

/// Whether any state is summed over a step.
pub fn has_sums(variables: &Variables) -> bool {
    variables.states().iter().any(|s| s.usage == StateUse::StepSum)
}

/// The records that the slot of a rank with these lanes holds for a step: a micro-batch and the
/// program that names its inputs. Programs with the same inputs share the record of a micro-batch.
pub fn records(
    workload: &dyn Workload,
    shape: &StepShape,
    lanes: &Range<usize>,
) -> Vec<(usize, ProgramId)> {
    let mut records: Vec<(usize, ProgramId)> = Vec::new();
    let batch = workload.batch().with_micro_batches(shape.micro_batches);
    for run in list_runs(workload.programs(), shape, batch) {
        if lanes.contains(&run.lane)
            && find_record(workload.programs(), &records, run.micro_batch, run.program).is_none()
        {
            records.push((run.micro_batch, run.program));
        }
    }
    records
}

fn find_record(
    programs: &[Program],
    records: &[(usize, ProgramId)],
    micro_batch: usize,
    program: ProgramId,
) -> Option<usize> {
    let fields = |id: ProgramId| programs[id.0].fields();
    records.iter().position(|&(m, p)| m == micro_batch && fields(p) == fields(program))
}

/// A run before it is cut, on whichever rank.
#[derive(Debug, Clone, Copy)]
struct Whole {
    phase: usize,
    program: ProgramId,
    micro_batch: usize,
    slice: usize,
    lane: usize,
}

fn list_runs(programs: &[Program], shape: &StepShape, batch: Batch) -> Vec<Whole> {
    let mut runs = Vec::new();
    let mut add = |phase, program: ProgramId, micro_batch, slice| {
        assert!(program.0 < programs.len(), "program {} of {}", program.0, programs.len());
        let lane = batch.lane_of(micro_batch);
        runs.push(Whole { phase, program, micro_batch, slice, lane });
    };
    for (i, phase) in shape.phases.iter().enumerate() {
        match phase {
            Phase::Each { micro_batches, programs } => {
                for (slice, m) in micro_batches.clone().enumerate() {
                    add(i, programs[slice], m, slice);
                }
            }
            Phase::Once { program, micro_batches } => add(i, *program, micro_batches.start, 0),
            Phase::Gather { .. } | Phase::Broadcast { .. } => {}
        }
    }
    runs
}

struct Planner<'w> {
    workload: &'w dyn Workload,
    batch: Batch,
    tree: LaneTree,
    rank: usize,
    runs: Vec<Whole>,
    records: Vec<(usize, ProgramId)>,
    last_phase: usize,
    lanes: Vec<LaneStep>,
    next_lane: usize,
    next_bucket: usize,
    /// By bucket: the run (of this rank's last lane) and the number of its nodes after which this
    /// bucket and all before it are final.
    finals: Vec<(usize, usize)>,
    plan: StepPlan,
}

impl Planner<'_> {
    fn layout(&self) -> &Layout {
        self.workload.layout()
    }

    fn program(&self, id: ProgramId) -> &Program {
        &self.workload.programs()[id.0]
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
                let bucket = self.layout().placements[id.0].bucket.expect("it has a gradient");
                finals[bucket] = finals[bucket].max((run, node + 1));
            }
        }
        let mut latest = (0, 0);
        for one in &mut finals {
            latest = latest.max(*one);
            *one = latest;
        }
        finals
    }

    fn phase(&mut self, index: usize, phase: &Phase) {
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
                self.plan.entries.push(Entry::Gather { parts });
            }
            Phase::Broadcast { buffer, micro_batches } => {
                let lane = self.batch.lane_of(micro_batches.start);
                let owns = |&rank: &usize| self.tree.lanes_of(rank).contains(&lane);
                let root = (0..self.tree.ranks()).find(owns).expect("every lane has an owner");
                let bytes = self.workload.variables().step_buffers()[buffer.0].bytes();
                let span = Span { offset: self.layout().step_buffers[buffer.0], bytes };
                self.plan.entries.push(Entry::Broadcast { root, span });
            }
        }
        if index == self.last_phase {
            self.open_lanes_before(usize::MAX);
            self.reduce_until((usize::MAX, usize::MAX));
        }
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
            self.emit(whole, 0, Arc::default(), 0..nodes, true);
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
        let mut done = 0;
        if final_lane && whole.phase == self.last_phase {
            while let Some(&(run, end)) = self.finals.get(self.next_bucket) {
                if run > index {
                    break;
                }
                let end = if run == index { end } else { done };
                if end > done {
                    self.emit(whole, lane.buffer, first.clone(), done..end, end == nodes);
                    done = end;
                }
                // Buckets that an earlier phase finished are reduced at the first chance.
                self.reduce_until((index, end));
            }
        }
        if done < nodes {
            self.emit(whole, lane.buffer, first, done..nodes, true);
        }
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
                self.plan.entries.push(Entry::Fold { into: fold.into, from: fold.from, elements });
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
                self.plan.entries.push(Entry::Fold { into: fold.into, from: fold.from, elements });
            }
            self.plan.entries.push(Entry::Reduce { bucket });
            self.next_bucket += 1;
        }
    }

    fn zero_unwritten(&mut self, lane: &LaneStep, runs: &[usize]) {
        let mut written = BTreeSet::new();
        for &run in runs {
            let program = self.program(self.runs[run].program);
            written.extend(program.gradient_writes().iter().map(|w| w.0));
        }
        let trainable = |&(_, p): &(usize, &octet_kernels::graph::Parameter)| p.trainable;
        let parameters: Vec<ParameterId> = self
            .workload
            .variables()
            .parameters()
            .iter()
            .enumerate()
            .filter(trainable)
            .map(|(i, _)| ParameterId(i))
            .filter(|id| !written.contains(id))
            .collect();
        if !parameters.is_empty() {
            self.plan.entries.push(Entry::Zero { buffer: lane.buffer, parameters });
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

    fn emit(
        &mut self,
        whole: Whole,
        buffer: usize,
        first_in_lane: Arc<[bool]>,
        nodes: Range<usize>,
        ends: bool,
    ) {
        let programs = self.workload.programs();
        let record = find_record(programs, &self.records, whole.micro_batch, whole.program);
        let row = ends.then_some(self.plan.rows);
        self.plan.rows += usize::from(ends);
        self.plan.entries.push(Entry::Run(Run {
            program: whole.program,
            micro_batch: whole.micro_batch,
            record: record.expect("every run has a record"),
            slice: whole.slice,
            buffer,
            first_in_lane,
            load: nodes.start == 0,
            nodes,
            row,
        }));
    }
}
