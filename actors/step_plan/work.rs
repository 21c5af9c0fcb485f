//! What a step is made of: pieces of work; and a piece in a plan: its stream and what it waits for.

use std::ops::Range;
use std::sync::Arc;

use octet_kernels::device::Event;
use octet_kernels::graph::ParameterId;
use octet_kernels::memory::Span;
use octet_kernels::ops::Stream;

use crate::contract::ProgramId;

/// A place in the order of a stream that other streams can wait for, by number: the device's event
/// for it. The first ones outlive the step ([`Work::lasting`]): whoever touches what such work
/// touches waits for it, in the next step too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark(pub usize);

impl Mark {
    /// What the step has to say is copied out.
    pub const OUTCOME: Self = Self(0);

    /// A snapshot has what all ranks have equally.
    pub const SHARED: Self = Self(1);

    /// A bucket's fresh parameters are gathered.
    pub fn fresh(bucket: usize) -> Self {
        Self(2 + 2 * bucket)
    }

    /// A snapshot has this rank's shard of a bucket.
    pub fn saved(bucket: usize) -> Self {
        Self(3 + 2 * bucket)
    }

    /// Marks that outlive a step, of so many buckets.
    pub fn lasting(buckets: usize) -> usize {
        2 + 2 * buckets
    }

    /// The device's event for it.
    pub fn event(self) -> Event {
        Event(self.0)
    }
}

/// A record and the arguments of the runs over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// The program that reads it.
    pub program: ProgramId,
    /// The micro-batch within the step.
    pub micro_batch: usize,
    /// Which record of the rank's slot it is.
    pub record: usize,
    /// Position among the rank's runs of the step: which buffer takes it.
    pub row: usize,
}

/// A stretch of one program over one micro-batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The program.
    pub program: ProgramId,
    /// The micro-batch within the step; for a group's program, the group's first.
    pub micro_batch: usize,
    /// Position in its group: which slice of the step buffers it is.
    pub slice: usize,
    /// The gradient buffer of its lane.
    pub buffer: usize,
    /// By parameter: whether this run is the lane's first to write that gradient.
    pub first_in_lane: Arc<[bool]>,
    /// Position among the rank's runs of the step: which buffer holds its record.
    pub row: usize,
    /// The nodes to run.
    pub nodes: Range<usize>,
}

/// The fetched scalars of a run that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// The program.
    pub program: ProgramId,
    /// The micro-batch within the step.
    pub micro_batch: usize,
    /// Position in its group.
    pub slice: usize,
    /// The row of the metrics table that takes them.
    pub row: usize,
}

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Zero the step's sums and the overflow flag.
    Begin,
    /// Zero gradients that no run of a lane writes.
    Zero {
        /// The lane's gradient buffer.
        buffer: usize,
        /// Whose gradients.
        parameters: Vec<ParameterId>,
    },
    /// Copy a micro-batch's record in.
    Load(Load),
    /// Run nodes. On the communication stream: the one node that meets other devices.
    Run(Run),
    /// Keep what a run has fetched.
    Keep(Keep),
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
    /// Sum a bucket's gradients over ranks.
    Reduce {
        /// The bucket.
        bucket: usize,
    },
    /// Sum the step's integer states over ranks.
    SumStates,
    /// Sums of squares of this rank's blocks.
    Squares,
    /// Gather them, and with them who overflowed.
    GatherSquares,
    /// From these the norm, the clip factor, and whether to update at all.
    Decide,
    /// Update what this rank keeps of a bucket.
    Update {
        /// The bucket.
        bucket: usize,
    },
    /// Gather a bucket's fresh parameters.
    GatherParameters {
        /// The bucket.
        bucket: usize,
    },
    /// Copy out what the step has to say.
    Outcome,
    /// Run a program if the update was made. The host waits for the outcome.
    Finally {
        /// The program.
        program: ProgramId,
    },
    /// Nothing: a place behind all that compute was given before.
    Rest,
    /// Copy this rank's shard of a bucket, and of its optimizer state, into a snapshot.
    Save {
        /// The bucket.
        bucket: usize,
    },
    /// Copy what all ranks have equally into a snapshot: states and frozen parameters.
    SaveShared,
}

impl Work {
    /// The run that it belongs to, by position among those of the rank: left out if that does not
    /// begin.
    pub fn row(&self) -> Option<usize> {
        match self {
            Self::Load(load) => Some(load.row),
            Self::Run(run) => Some(run.row),
            Self::Keep(keep) => Some(keep.row),
            _ => None,
        }
    }

    /// Its mark, if it may go on when the next step begins.
    pub fn lasting(&self) -> Option<Mark> {
        match *self {
            Self::GatherParameters { bucket } => Some(Mark::fresh(bucket)),
            Self::Outcome => Some(Mark::OUTCOME),
            Self::Save { bucket } => Some(Mark::saved(bucket)),
            Self::SaveShared => Some(Mark::SHARED),
            _ => None,
        }
    }
}

/// One entry of a plan: work in the order of its stream, behind the marks that it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What is done.
    pub work: Work,
    /// Where.
    pub stream: Stream,
    /// Marks of other streams that must have been passed.
    pub after: Vec<Mark>,
    /// The mark that is passed with it, if anybody waits for it.
    pub mark: Option<Mark>,
}
