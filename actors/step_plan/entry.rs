//! What a step plan is a list of: a piece of work, its stream, and what it waits for.

use std::ops::Range;
use std::sync::Arc;

use octet_kernels::device::Event;
use octet_kernels::graph::ParameterId;
use octet_kernels::memory::Span;
use octet_kernels::ops::Stream;

use crate::contract::ProgramId;

/// A place in the order of a stream that the other stream can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mark {
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

impl Mark {
    /// The device's event for it, in a layout of so many buckets.
    pub fn event(self, buckets: usize) -> Event {
        let of_step = 4 * buckets;
        Event(match self {
            Self::Final(bucket) => bucket,
            Self::Reduced(bucket) => buckets + bucket,
            Self::Updated(bucket) => 2 * buckets + bucket,
            Self::Fresh(bucket) => 3 * buckets + bucket,
            Self::Counted => of_step,
            Self::Summed => of_step + 1,
            Self::Squared => of_step + 2,
            Self::Gathered => of_step + 3,
            Self::Ready(occasion) => of_step + 4 + 2 * occasion,
            Self::Exchanged(occasion) => of_step + 5 + 2 * occasion,
        })
    }

    /// Events of a device for steps of so many buckets and occasions.
    pub fn events(buckets: usize, occasions: usize) -> usize {
        Self::Ready(occasions).event(buckets).0
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
}

impl Work {
    /// Whether it belongs to a micro-batch, and is left out if that does not begin.
    pub fn is_of_micro_batch(&self) -> bool {
        matches!(self, Self::Load(_) | Self::Run(_) | Self::Keep(_))
    }
}

/// One entry of the list: work in the order of its stream, behind the marks that it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What is done.
    pub work: Work,
    /// Where.
    pub stream: Stream,
    /// Marks of the other stream that must have been passed.
    pub after: Vec<Mark>,
    /// Marks that are passed with it.
    pub signals: Vec<Mark>,
}
