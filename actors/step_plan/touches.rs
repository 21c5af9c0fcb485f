//! What a piece of work reads and writes, and on which stream it runs: all that order between
//! streams follows from.

use std::ops::Range;

use octet_kernels::collectives::LaneTree;
use octet_kernels::graph::{Access, ParameterId, Program};
use octet_kernels::ops::Stream;

use crate::contract::{ProgramId, Workload};
use crate::rank_memory::{INPUTS, Zero};
use crate::step_plan::work::{Run, Work};

/// Memory of one rank, as finely as works tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell {
    States,
    Step,
    /// Two records: one is read while the next comes in.
    Input(usize),
    Activations,
    Metrics,
    Staging,
    /// Sums of squares of this rank's blocks, and its overflow flag.
    OwnSums,
    OtherSums,
    Decision,
    Fingerprints,
    /// By bucket: this rank's shard of the parameters.
    OwnParameters(usize),
    OtherParameters(usize),
    /// Masters and moments.
    Kept(usize),
    /// What every rank has, written only where a step ends: replicated states, frozen parameters.
    Shared,
    Gradient {
        buffer: usize,
        bucket: usize,
    },
}

/// A cell and whether it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Touch {
    pub(super) cell: Cell,
    pub(super) writes: bool,
}

fn input(row: usize) -> Cell {
    Cell::Input(row % INPUTS)
}

fn read(cell: Cell) -> Touch {
    Touch { cell, writes: false }
}

fn write(cell: Cell) -> Touch {
    Touch { cell, writes: true }
}

/// What any node may use.
const REGIONS: [Cell; 4] = [Cell::Activations, Cell::States, Cell::Step, Cell::OwnSums];

fn read_parameters(bucket: usize) -> [Touch; 2] {
    [read(Cell::OwnParameters(bucket)), read(Cell::OtherParameters(bucket))]
}

/// All buckets in the order in which a step first reads their parameters, as far as the order of
/// the programs tells. Fresh ones travel in this order, on all ranks and in steps of any shape.
pub(super) fn buckets_by_first_read(workload: &dyn Workload) -> Vec<usize> {
    let mut seen = vec![false; workload.layout().buckets.len()];
    let mut order = Vec::with_capacity(seen.len());
    let accesses = workload.programs().iter().flat_map(Program::accesses);
    let read = accesses.flat_map(|access| workload.layout().buckets_of(access.parameter));
    for bucket in read.chain(0..seen.len()) {
        if !std::mem::replace(&mut seen[bucket], true) {
            order.push(bucket);
        }
    }
    order
}

/// One rank's memory, by what its works do to it.
pub(super) struct Memory<'w> {
    workload: &'w dyn Workload,
    rank: usize,
    zero: Zero,
    /// By parameter: the buckets in which it has elements.
    buckets_of: Vec<Range<usize>>,
    /// Gradient buffers in which this rank's lanes end.
    pieces: Vec<usize>,
    buffers: usize,
}

impl<'w> Memory<'w> {
    pub(super) fn new(
        workload: &'w dyn Workload,
        tree: &LaneTree,
        rank: usize,
        zero: Zero,
    ) -> Self {
        let parameters = 0..workload.variables().parameters().len();
        let buckets = |i| workload.layout().buckets_of(ParameterId(i));
        let own = tree.pieces().into_iter().filter(|piece| piece.rank == rank);
        Self {
            workload,
            rank,
            zero,
            buckets_of: parameters.map(buckets).collect(),
            pieces: own.map(|piece| piece.buffer).collect(),
            buffers: tree.buffers(rank),
        }
    }

    pub(super) fn buckets(&self) -> usize {
        self.workload.layout().buckets.len()
    }

    /// What of the step before may still go on when a step begins, in that order.
    pub(super) fn lasting_before(&self) -> Vec<Work> {
        let gathers = match self.zero {
            Zero::Zero0 => Vec::new(),
            Zero::Zero1 => buckets_by_first_read(self.workload),
        };
        let gathers = gathers.into_iter().map(|bucket| Work::GatherParameters { bucket });
        let saves = buckets_by_first_read(self.workload).into_iter();
        let saves = saves.map(|bucket| Work::Save { bucket });
        let shared = (self.rank == 0).then_some(Work::SaveShared);
        gathers.chain([Work::Outcome]).chain(shared).chain(saves).collect()
    }

    pub(super) fn program(&self, id: ProgramId) -> &'w Program {
        &self.workload.programs()[id.0]
    }

    /// Number of cells.
    pub(super) fn cells(&self) -> usize {
        let last = self.buckets().saturating_sub(1);
        self.index(Cell::Gradient { buffer: self.buffers.max(1) - 1, bucket: last }) + 1
    }

    /// A cell's number, below [`Self::cells`].
    pub(super) fn index(&self, cell: Cell) -> usize {
        let of_bucket = |kind: usize, bucket| 10 + INPUTS + kind * self.buckets() + bucket;
        match cell {
            Cell::States => 0,
            Cell::Step => 1,
            Cell::Activations => 2,
            Cell::Metrics => 3,
            Cell::Staging => 4,
            Cell::OwnSums => 5,
            Cell::OtherSums => 6,
            Cell::Decision => 7,
            Cell::Fingerprints => 8,
            Cell::Shared => 9,
            Cell::Input(buffer) => 10 + buffer,
            Cell::OwnParameters(bucket) => of_bucket(0, bucket),
            Cell::OtherParameters(bucket) => of_bucket(1, bucket),
            Cell::Kept(bucket) => of_bucket(2, bucket),
            Cell::Gradient { buffer, bucket } => of_bucket(3 + buffer, bucket),
        }
    }

    /// Where work runs.
    pub(super) fn stream(&self, work: &Work) -> Stream {
        match work {
            Work::Gather { .. }
            | Work::Broadcast { .. }
            | Work::Reduce { .. }
            | Work::SumStates
            | Work::GatherSquares
            | Work::GatherParameters { .. } => Stream::Communication,
            Work::Run(run) if self.meets(run) => Stream::Communication,
            Work::Load(_) => Stream::CopyIn,
            Work::Outcome | Work::Save { .. } | Work::SaveShared => Stream::CopyOut,
            _ => Stream::Compute,
        }
    }

    /// Whether it is the one node that meets other devices.
    fn meets(&self, run: &Run) -> bool {
        run.nodes.len() == 1 && self.program(run.program).meetings().contains(&run.nodes.start)
    }

    /// What work reads and writes.
    pub(super) fn touches(&self, work: &Work) -> Vec<Touch> {
        let gradient = |buffer, bucket| Cell::Gradient { buffer, bucket };
        match work {
            Work::Begin => vec![write(Cell::States), write(Cell::OwnSums)],
            Work::Zero { buffer, parameters } => {
                let buckets = parameters.iter().flat_map(|id| self.buckets_of[id.0].clone());
                buckets.map(|bucket| write(gradient(*buffer, bucket))).collect()
            }
            Work::Load(load) => vec![write(input(load.row))],
            Work::Run(run) => self.touches_of_run(run),
            Work::Keep(keep) => {
                let from = [input(keep.row), Cell::Activations, Cell::States, Cell::Step].map(read);
                from.into_iter().chain([write(Cell::Metrics)]).collect()
            }
            Work::Fold { into, from, elements } => {
                let both = |b| [write(gradient(*into, b)), read(gradient(*from, b))];
                self.buckets_in(elements).flat_map(both).collect()
            }
            Work::Gather { .. } | Work::Broadcast { .. } => vec![write(Cell::Step)],
            &Work::Reduce { bucket } => {
                let sent = self.pieces.iter().map(|&buffer| read(gradient(buffer, bucket)));
                sent.chain([write(gradient(0, bucket)), write(Cell::Staging)]).collect()
            }
            Work::SumStates => vec![write(Cell::States), write(Cell::Staging)],
            Work::Squares => {
                let gradients = (0..self.buckets()).map(|bucket| read(gradient(0, bucket)));
                gradients.chain([write(Cell::OwnSums)]).collect()
            }
            Work::GatherSquares => vec![read(Cell::OwnSums), write(Cell::OtherSums)],
            Work::Decide => {
                vec![read(Cell::OwnSums), read(Cell::OtherSums), write(Cell::Decision)]
            }
            &Work::Update { bucket } => {
                let everything = self.zero == Zero::Zero0;
                let others = everything.then(|| write(Cell::OtherParameters(bucket)));
                let own = [
                    read(Cell::Decision),
                    read(gradient(0, bucket)),
                    write(Cell::Kept(bucket)),
                    write(Cell::Fingerprints),
                    write(Cell::OwnParameters(bucket)),
                ];
                own.into_iter().chain(others).collect()
            }
            &Work::GatherParameters { bucket } => {
                vec![read(Cell::OwnParameters(bucket)), write(Cell::OtherParameters(bucket))]
            }
            Work::Outcome => [Cell::Decision, Cell::Fingerprints, Cell::Metrics].map(read).into(),
            &Work::Finally { program } => self.touches_of_last(program),
            Work::Rest => Vec::new(),
            &Work::Save { bucket } => {
                vec![read(Cell::OwnParameters(bucket)), read(Cell::Kept(bucket))]
            }
            Work::SaveShared => vec![read(Cell::Shared)],
        }
    }

    /// A program may use any of its regions in any node, but parameters and gradients only where it
    /// says so.
    fn touches_of_run(&self, run: &Run) -> Vec<Touch> {
        let regions = REGIONS.map(write);
        let reads = [read(input(run.row)), read(Cell::Shared)];
        let mut touches: Vec<Touch> = regions.into_iter().chain(reads).collect();
        for access in self.accesses(run) {
            for bucket in self.buckets_of[access.parameter.0].clone() {
                if access.gradient {
                    touches.push(write(Cell::Gradient { buffer: run.buffer, bucket }));
                } else {
                    touches.extend(read_parameters(bucket));
                }
            }
        }
        touches
    }

    /// A program that ends a step has arguments, where a record would be.
    fn touches_of_last(&self, program: ProgramId) -> Vec<Touch> {
        let regions = REGIONS.into_iter().chain([input(0), Cell::Shared]).map(write);
        let read = self.program(program).accesses().iter();
        let read = read.flat_map(|access| self.buckets_of[access.parameter.0].clone());
        regions.chain(read.flat_map(read_parameters)).collect()
    }

    fn accesses(&self, run: &Run) -> &'w [Access] {
        let all = self.program(run.program).accesses();
        let before = |end: usize| all.partition_point(|access| access.node < end);
        &all[before(run.nodes.start)..before(run.nodes.end)]
    }

    /// Where a run may have to be cut: before a node that reads parameters, which may still be
    /// travelling; behind one that writes gradients, which may leave at once; around one that meets
    /// other devices.
    pub(super) fn cuts(&self, run: &Run) -> Vec<usize> {
        let uses = self.accesses(run).iter();
        let uses = uses.map(|access| access.node + usize::from(access.gradient));
        let meetings = self.program(run.program).meetings();
        let around = meetings.iter().flat_map(|&node| [node, node + 1]);
        let inside = |node: &usize| (run.nodes.start + 1..run.nodes.end).contains(node);
        let mut cuts: Vec<usize> = uses.chain(around).filter(inside).collect();
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    }

    fn buckets_in(&self, elements: &Range<usize>) -> Range<usize> {
        let buckets = &self.workload.layout().buckets;
        let first = buckets.partition_point(|b| b.elements.end <= elements.start);
        first..buckets.partition_point(|b| b.elements.start < elements.end)
    }
}
