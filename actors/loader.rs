//! The loader: fills batch slots ahead of need, in the order in which they are ordered.
//!
//! One per rank, on its own thread. Slots circulate: the rank hands back empty ones, the loader
//! hands over full ones. It takes an order only as fast as slots come back, so memory never grows.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use octet_kernels::collectives::LaneTree;
use octet_kernels::error::Error;
use octet_kernels::memory::HostBuffer;

use crate::actor::{Actor, Flow, Port};
use crate::contract::{Purpose, Record, StepShape, Workload};
use crate::fault::{ActorName, Fault};
use crate::outcome::DEPTH_MAX;
use crate::schedule::ahead;
use crate::step_plan::records;

#[cfg(test)]
mod tests;

/// Slots of a rank's ring: one being used, one ready, one being filled.
pub const SLOTS: usize = 3;

/// Records start at multiples of this many bytes.
pub const RECORD_ALIGNMENT: usize = 64;

/// Orders that may wait for a loader: the steps that are planned ahead with every task after each,
/// once more after a step is planned again, and what a run begins with.
pub fn orders_max(tasks: usize) -> usize {
    2 * ahead(DEPTH_MAX) as usize * (1 + tasks) + tasks
}

/// The loader's protocol.
#[derive(Debug)]
pub enum LoaderMessage {
    /// Fill slots for a piece of work.
    Order(Order),
    /// A slot that may be filled.
    Free(BatchSlot),
}

/// What to fill slots for. The ticket returns with the slots, so that slots of abandoned work are
/// recognised and dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// This rank's micro-batches of a step: one slot.
    Step {
        /// Number of the piece of work.
        ticket: u64,
        /// The batch of the data's order: the step, and later where data is passed over.
        batch: u64,
        /// How often it overflowed before.
        attempt: usize,
    },
    /// This rank's parts of a held-out task: as many slots as it takes.
    Evaluate {
        /// Number of the piece of work.
        ticket: u64,
        /// Position of the task.
        task: usize,
    },
}

/// Records for one rank, in memory that was taken at the start and that its device copies from.
#[derive(Debug)]
pub struct BatchSlot {
    /// The work it was filled for.
    pub ticket: u64,
    /// Position among the slots of one order.
    pub sequence: u64,
    /// Records that are filled.
    pub filled: usize,
    shape: SlotShape,
    memory: HostBuffer,
}

impl BatchSlot {
    /// A slot in memory that a device gave: as many bytes as its shape has.
    pub fn new(shape: SlotShape, memory: HostBuffer) -> Self {
        assert_eq!(memory.bytes(), shape.bytes(), "{shape:?}");
        Self { ticket: 0, sequence: 0, filled: 0, shape, memory }
    }

    /// A slot that no device reads.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn without_device(shape: SlotShape) -> Result<Self, Error> {
        Ok(Self::new(shape, HostBuffer::plain(shape.bytes())?))
    }

    /// Records that it can hold.
    pub fn records(&self) -> usize {
        self.shape.records
    }

    /// Bytes of record `record`.
    pub fn record(&self, record: usize) -> &[u8] {
        let bytes = self.shape.record_bytes;
        &self.memory.as_slice()[record * bytes..][..bytes]
    }

    fn record_mut(&mut self, record: usize) -> &mut [u8] {
        let bytes = self.shape.record_bytes;
        &mut self.memory.as_mut_slice()[record * bytes..][..bytes]
    }
}

/// How many records a rank's slot holds and how long they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotShape {
    /// Records of a step, or as many parts of a task.
    pub records: usize,
    /// Bytes of the longest program's input, and up to a multiple of [`RECORD_ALIGNMENT`].
    pub record_bytes: usize,
}

impl SlotShape {
    /// The slots of `rank` of `ranks`.
    pub fn new(workload: &dyn Workload, tree: &LaneTree, rank: usize) -> Self {
        let lanes = tree.lanes_of(rank);
        let of_shape = |shape: Arc<StepShape>| records(workload, &shape, &lanes).len();
        let records = workload.shapes().into_iter().map(of_shape).max().unwrap_or(0);
        let bytes = workload.programs().iter().map(|p| p.input_bytes).max().unwrap_or(0);
        Self { records, record_bytes: bytes.next_multiple_of(RECORD_ALIGNMENT) }
    }

    /// Bytes of a slot.
    pub fn bytes(&self) -> usize {
        self.records * self.record_bytes
    }

    /// Host bytes of the ring.
    pub fn ring_bytes(&self) -> usize {
        SLOTS * self.bytes()
    }
}

/// The parts of a task that `rank` evaluates: every `ranks`-th.
pub fn parts_of(parts: u64, rank: usize, ranks: usize) -> impl Iterator<Item = u64> {
    (rank as u64..parts).step_by(ranks)
}

/// The actor.
#[derive(Debug)]
pub struct Loader {
    workload: Arc<dyn Workload>,
    rank: usize,
    ranks: usize,
    lanes: Range<usize>,
    orders: VecDeque<Order>,
    /// Slots of the first order that are already out.
    sent: u64,
    free: Vec<BatchSlot>,
    full: Port<BatchSlot>,
}

impl Loader {
    /// The loader of one rank, which hands full slots to `full`.
    pub fn new(
        workload: Arc<dyn Workload>,
        tree: &LaneTree,
        rank: usize,
        full: Port<BatchSlot>,
    ) -> Self {
        let lanes = tree.lanes_of(rank);
        let orders = orders_max(workload.evaluations().len());
        Self {
            workload,
            rank,
            ranks: tree.ranks(),
            lanes,
            orders: VecDeque::with_capacity(orders),
            sent: 0,
            free: Vec::with_capacity(SLOTS),
            full,
        }
    }

    /// Fills one slot for the first order. Returns whether the order is complete.
    fn fill(&mut self, slot: &mut BatchSlot, order: Order) -> Result<bool, Fault> {
        slot.sequence = self.sent;
        match order {
            Order::Step { ticket, batch, attempt } => {
                slot.ticket = ticket;
                self.fill_step(slot, batch, attempt)?;
                Ok(true)
            }
            Order::Evaluate { ticket, task } => {
                slot.ticket = ticket;
                let about = &self.workload.evaluations()[task];
                let per_slot = slot.records();
                let mut parts = parts_of(about.parts, self.rank, self.ranks)
                    .skip(self.sent as usize * per_slot)
                    .peekable();
                slot.filled = 0;
                for part in parts.by_ref().take(per_slot) {
                    let mut record = Record::new(slot.record_mut(slot.filled));
                    let purpose = Purpose::Evaluate { task, part };
                    self.workload.fill(purpose, about.program, &mut record)?;
                    slot.filled += 1;
                }
                Ok(parts.peek().is_none())
            }
        }
    }

    fn fill_step(&self, slot: &mut BatchSlot, batch: u64, attempt: usize) -> Result<(), Fault> {
        let shape = self.workload.shape(batch, attempt);
        let records = records(&*self.workload, &shape, &self.lanes);
        slot.filled = records.len();
        if slot.filled > slot.records() {
            let what = format!("a step of {} records, planned for {}", slot.filled, slot.records());
            return Err(Fault::ours(ActorName::Loader(self.rank), what));
        }
        for (i, &(micro_batch, program)) in records.iter().enumerate() {
            let purpose = Purpose::Train { step: batch, attempt, micro_batch };
            let mut record = Record::new(slot.record_mut(i));
            self.workload.fill(purpose, program, &mut record)?;
        }
        Ok(())
    }
}

impl Actor for Loader {
    type Message = LoaderMessage;

    fn name(&self) -> ActorName {
        ActorName::Loader(self.rank)
    }

    fn apply(&mut self, message: LoaderMessage) -> Result<Flow, Fault> {
        match message {
            LoaderMessage::Order(order) => self.orders.push_back(order),
            LoaderMessage::Free(slot) => self.free.push(slot),
        }
        while let Some(&order) = self.orders.front()
            && let Some(mut slot) = self.free.pop()
        {
            let complete = self.fill(&mut slot, order)?;
            self.full.tell(slot);
            self.sent += 1;
            if complete {
                self.orders.pop_front();
                self.sent = 0;
            }
        }
        Ok(Flow::Continue)
    }
}
