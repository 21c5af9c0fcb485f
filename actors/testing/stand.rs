//! One rank without supervisor or thread of its own, and its loader: both are told by hand.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crossbeam::channel::{Receiver, unbounded};
use octet_kernels::device::Open;

use super::{Moment, Watch};
use crate::actor::{Actor, Closed, Port};
use crate::agreement::Agreement;
use crate::contract::Workload;
use crate::engine::Engine;
use crate::fault::Fault;
use crate::loader::{BatchSlot, Loader, LoaderMessage, Order};
use crate::outside::SystemClock;
use crate::rank::{
    DataPath, PEER_TIMEOUT, Rank, RankEnds, RankMessage, RankReply, StepNumbers, StepOutcome,
};
use crate::rank_memory::{RankMemory, Zero};
use crate::snapshot::{Region, Slot};

/// A step as one rank saw it.
pub(super) struct Tried {
    pub(super) attempts: usize,
    pub(super) outcome: StepOutcome,
    /// A snapshot of an earlier state was still being copied out, which the update waits for.
    pub(super) saving: bool,
}

/// One rank and its loader, fed by hand.
pub(super) struct Stand {
    workload: Arc<dyn Workload>,
    rank: Rank,
    loader: Loader,
    replies: Receiver<RankReply>,
    free: Receiver<BatchSlot>,
    /// Where the state at the end goes.
    slot: Slot,
    /// By bucket: what this rank copies there.
    shards: Vec<Range<usize>>,
    depth: usize,
    /// Steps in flight, and which attempt each is.
    given: VecDeque<(u64, usize)>,
    tickets: u64,
    /// Of all steps that have said how they went.
    pub(super) updates: u64,
    pub(super) watch: Option<Watch>,
    pub(super) passed_over: u64,
    pub(super) halfway: u64,
}

impl Stand {
    pub(super) fn new(
        workload: &Arc<dyn Workload>,
        open: Open,
        (rank, ranks, zero): (usize, usize, Zero),
        slots: [Slot; 2],
        depth: usize,
    ) -> Self {
        let memory = RankMemory::new(&**workload, ranks, rank, zero).expect("a plan");
        let (full_in, full) = unbounded();
        let (free_in, free) = unbounded();
        let to_rank = Port::new(move |slot| full_in.send(slot).map_err(|_| Closed));
        let loader = Loader::new(workload.clone(), &memory.tree, rank, to_rank);
        let (replies_in, replies) = unbounded();
        let (device, communicator) = open().expect("the CPU is there");
        let buckets = 0..workload.layout().buckets.len();
        let shards = buckets.map(|bucket| memory.owners.shard(bucket, rank)).collect();
        let engine = Engine::new(workload.clone(), memory, device).expect("memory");
        poison(&engine);
        let ends = RankEnds {
            slots: slots.to_vec(),
            data: DataPath { full, free: free_in },
            depth,
            patience: PEER_TIMEOUT,
            clock: Arc::new(SystemClock::new()),
            supervisor: Port::new(move |reply| replies_in.send(reply).map_err(|_| Closed)),
            evaluator: Port::new(|_| Ok(())),
            agreement: Arc::new(Agreement::default()),
            pulse: None,
        };
        let [slot, _] = slots;
        let rank = Rank::new(engine, communicator, ends).expect("memory");
        Self {
            workload: workload.clone(),
            rank,
            loader,
            replies,
            free,
            slot,
            shards,
            depth,
            given: VecDeque::new(),
            tickets: 0,
            updates: 0,
            watch: None,
            passed_over: 0,
            halfway: 0,
        }
    }

    /// Takes steps, and what they leave into the first slot.
    pub(super) fn run(mut self, steps: Range<u64>) -> Result<(Vec<Tried>, u64), Fault> {
        self.rank.apply(RankMessage::Restore { slot: 0 })?;
        assert_eq!(self.replies.recv(), Ok(RankReply::Restored));
        let mut outcomes = Vec::new();
        let mut next = (steps.start, 0);
        while outcomes.len() < (steps.end - steps.start) as usize {
            while next.0 < steps.end && self.may_give(next.0) {
                self.give(next)?;
                next = (next.0 + 1, 0);
            }
            let (step, attempt) = self.given.pop_front().expect("there is room for one");
            let outcome = self.outcome()?;
            let saving = self.rank.is_saving();
            if outcome.held || (outcome.overflow && attempt + 1 < self.workload.attempts()) {
                next = (step, attempt + usize::from(!outcome.held));
                while self.given.pop_front().is_some() {
                    assert!(self.outcome()?.held, "a step behind one that is to be done again");
                }
                continue;
            }
            self.updates += u64::from(!outcome.skipped);
            outcomes.push(Tried { attempts: attempt + 1, outcome, saving });
            if self.given.is_empty() {
                self.rank.apply(RankMessage::Drive { step: step + 1 })?;
                let replies: Vec<RankReply> = self.replies.try_iter().collect();
                assert_eq!(replies.last(), Some(&RankReply::Drove));
            }
            if step + 1 == self.halfway {
                self.rank.apply(RankMessage::Snapshot { slot: 1 })?;
            }
        }
        self.rank.apply(RankMessage::Snapshot { slot: 0 })?;
        while self.rank.is_saving() {
            self.rank.look()?;
        }
        let copied = self.copied();
        self.rank.apply(RankMessage::Stop)?;
        Ok((outcomes, copied))
    }

    /// Whether a step may come already: nobody has to talk or to save before it.
    fn may_give(&self, step: u64) -> bool {
        let between = step == self.halfway || self.workload.drive(step).is_some();
        self.given.is_empty() || (self.given.len() < self.depth && !between)
    }

    /// Order-free sum of the master weights that this rank has copied into the slot.
    fn copied(&self) -> u64 {
        let of = |shard: &Range<usize>| {
            let values = self.slot.elements(Region::Masters, shard);
            // SAFETY: this rank's elements, which it has said to be there.
            let values: &[u32] = unsafe { values.as_slice() };
            let hash = |(i, bits): (usize, &u32)| {
                (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_mul(u64::from(*bits) | 1)
            };
            (shard.clone()).zip(values).map(hash).fold(0, u64::wrapping_add)
        };
        self.shards.iter().map(of).fold(0, u64::wrapping_add)
    }

    /// What the message `Step` does, in its parts.
    fn give(&mut self, (step, attempt): (u64, usize)) -> Result<(), Fault> {
        while let Ok(slot) = self.free.try_recv() {
            self.loader.apply(LoaderMessage::Free(slot))?;
        }
        self.tickets += 1;
        let (ticket, batch) = (self.tickets, step + self.passed_over);
        self.loader.apply(LoaderMessage::Order(Order::Step { ticket, batch, attempt }))?;
        let ready = self.rank.make_ready(ticket, batch, attempt)?;
        let watch = |moment| self.watch.iter().for_each(|watch| watch(step, moment));
        watch(Moment::Before);
        let updates = self.given.is_empty().then_some(self.updates);
        self.rank.fly(ready, StepNumbers { step, batch, updates })?;
        watch(Moment::After);
        self.given.push_back((step, attempt));
        Ok(())
    }

    /// Waits for the first step that was given.
    fn outcome(&mut self) -> Result<StepOutcome, Fault> {
        self.rank.land()?;
        loop {
            match self.replies.try_recv() {
                Ok(RankReply::Stepped(outcome)) => return Ok(*outcome),
                Ok(RankReply::Snapped { .. }) => {}
                other => panic!("instead of a step: {other:?}"),
            }
        }
    }
}

/// Fills what a run must not rely on with NaN: nobody reads an activation, an input or a step
/// buffer that was not written before.
fn poison(engine: &Engine) {
    let memory = &engine.memory;
    let [one, other] = memory.input;
    for span in [memory.activations, one, other, memory.step, memory.staging] {
        // SAFETY: nobody else has the memory yet.
        unsafe { engine.device.upload(&vec![0xFF; span.bytes], engine.slice(span)) }
            .expect("memory");
    }
}
