//! A model of a rank: its state is a chain of hashes over what it has learned from, its arena an
//! expansion of that chain. It takes real batch slots and writes real snapshot slots.
//!
//! Owns no device. A collective is a table on which every rank lays what it has; it is over when
//! all have.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::channel::{Receiver, Sender};
use octet_kernels::collectives::LaneTree;

use crate::actor::Port;
use crate::contract::{ProgramId, Purpose, Workload};
use crate::evaluator::EvaluatorMessage;
use crate::loader::{BatchSlot, parts_of};
use crate::rank::{RankMessage, RankReply, RunScalars, StepOutcome};
use crate::sim::toy::{Random, STATE_WORDS, expected};
use crate::snapshot::{Region, Slot};
use crate::step_plan::records;
use crate::testing::Toy;

/// The state of a model: all zero before the first step.
pub(crate) type Chain = [u64; STATE_WORDS - 1];

/// Chains by steps done and by the batch of the last, of all lives of a run. A step that is done
/// again must give the same; one that is done after a roll-back has another batch.
pub(crate) type History = BTreeMap<(u64, u64), Chain>;

/// Batches whose update is not finite: single ones, a pair, and the two that a run ends with.
const NOT_FINITE: [u64; 5] = [3, 6, 10, 12, 13];

/// A batch whose loss is a spike: the first of a pair.
const SPIKE: u64 = 5;

/// Where ranks meet in a step.
#[derive(Debug)]
pub(crate) struct Table {
    laid: Vec<Option<Laid>>,
    left: usize,
}

#[derive(Debug, Clone, Default)]
struct Laid {
    hashes: Vec<(usize, u64)>,
    abandoned: bool,
}

impl Table {
    pub(crate) fn new(ranks: usize) -> Self {
        Self { laid: vec![None; ranks], left: 0 }
    }

    fn is_full(&self) -> bool {
        self.laid.iter().all(Option::is_some)
    }

    /// What all ranks laid down, in micro-batch order. The last to leave clears the table.
    fn leave(&mut self) -> Laid {
        let mut sum = Laid::default();
        for laid in self.laid.iter().flatten() {
            sum.hashes.extend(&laid.hashes);
            sum.abandoned |= laid.abandoned;
        }
        sum.hashes.sort_unstable();
        self.left += 1;
        if self.left == self.laid.len() {
            *self = Self::new(self.laid.len());
        }
        sum
    }
}

/// What a rank is in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Nothing,
    Batch { ticket: u64, of: Numbers },
    Meeting { of: Numbers },
    Parts { ticket: u64, task: usize, step: u64, done: usize },
}

/// Which step it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Numbers {
    step: u64,
    batch: u64,
    attempt: usize,
    updates: Option<u64>,
}

/// The ends of a rank.
pub(crate) struct Ends {
    pub(crate) inbox: Receiver<RankMessage>,
    pub(crate) full: Receiver<BatchSlot>,
    pub(crate) free: Sender<BatchSlot>,
    pub(crate) supervisor: Port<RankReply>,
    pub(crate) evaluator: Port<EvaluatorMessage>,
    pub(crate) abandon: Arc<AtomicBool>,
}

/// The model.
pub(crate) struct ModelRank {
    workload: Arc<Toy>,
    rank: usize,
    ranks: usize,
    lanes: Range<usize>,
    slots: Vec<Slot>,
    ends: Ends,
    doing: Doing,
    step: u64,
    chain: Chain,
    /// Updates that led there, once it was told.
    updates: Option<u64>,
    /// The last step overflowed, or one before it.
    held: bool,
    scalars: Vec<RunScalars>,
    /// The batch of the step that goes on.
    batch: Option<BatchSlot>,
    /// Steps whose outcome is not told yet, with what they still read.
    flying: VecDeque<(BatchSlot, StepOutcome)>,
    depth: usize,
    /// A snapshot that is still being copied out: the slot, and the state that it gets.
    saving: Option<(usize, u64, Chain)>,
    /// Things done, by which copies take longer or shorter.
    acts: u64,
}

impl ModelRank {
    pub(crate) fn new(
        workload: Arc<Toy>,
        tree: &LaneTree,
        rank: usize,
        (slots, depth): (Vec<Slot>, usize),
        ends: Ends,
    ) -> Self {
        let lanes = tree.lanes_of(rank);
        let ranks = tree.ranks();
        let (doing, chain, scalars) = (Doing::Nothing, Chain::default(), Vec::new());
        Self {
            workload,
            rank,
            ranks,
            lanes,
            slots,
            ends,
            doing,
            step: 0,
            chain,
            updates: None,
            held: false,
            scalars,
            batch: None,
            flying: VecDeque::new(),
            depth,
            saving: None,
            acts: 0,
        }
    }

    /// Whether it has something to do.
    pub(crate) fn is_ready(&self, table: &Table) -> bool {
        self.saving.is_some() || !self.flying.is_empty() || self.is_ready_to_work(table)
    }

    fn is_ready_to_work(&self, table: &Table) -> bool {
        match self.doing {
            Doing::Nothing => !self.ends.inbox.is_empty(),
            Doing::Batch { .. } => !self.ends.full.is_empty(),
            Doing::Parts { .. } => !self.ends.full.is_empty() || self.abandons(),
            Doing::Meeting { .. } => table.is_full(),
        }
    }

    fn abandons(&self) -> bool {
        self.ends.abandon.load(Ordering::Relaxed)
    }

    /// Does one thing. Call it only when it is ready.
    pub(crate) fn act(&mut self, table: &mut Table, history: &mut History) {
        self.acts += 1;
        let full = self.flying.len() == self.depth || !self.is_ready_to_work(table);
        if !self.flying.is_empty() && (full || self.acts.is_multiple_of(3)) {
            return self.tell();
        }
        if self.saving.is_some() && (self.acts.is_multiple_of(5) || !self.is_ready_to_work(table)) {
            return self.finish_saving();
        }
        match self.doing {
            Doing::Nothing => {
                let message = self.ends.inbox.try_recv().expect("it is ready");
                self.begin(&message, history);
            }
            Doing::Batch { ticket, of } => {
                let slot = self.ends.full.try_recv().expect("it is ready");
                if slot.ticket == ticket {
                    table.laid[self.rank] = Some(self.learn(&slot, of.batch, of.attempt));
                    self.doing = Doing::Meeting { of };
                    self.batch = Some(slot);
                } else {
                    self.hand_back(slot);
                }
            }
            Doing::Meeting { of } => self.meet(table.leave(), of, history),
            Doing::Parts { ticket, task, step, done } => self.evaluate(ticket, task, step, done),
        }
    }

    /// How the first step in flight went.
    fn tell(&mut self) {
        let (slot, outcome) = self.flying.pop_front().expect("a step is in flight");
        self.hand_back(slot);
        self.ends.supervisor.tell(RankReply::Stepped(Box::new(outcome)));
    }

    fn hand_back(&self, slot: BatchSlot) {
        self.ends.free.try_send(slot).expect("the ring has room for its own slots");
    }

    fn begin(&mut self, message: &RankMessage, history: &History) {
        match *message {
            RankMessage::Restore { slot } => {
                while !self.flying.is_empty() {
                    self.tell();
                }
                (self.updates, self.held) = (None, false);
                self.restore(slot, history);
                self.ends.supervisor.tell(RankReply::Restored);
            }
            RankMessage::Step { ticket, step, batch, attempt, updates } => {
                let in_vain = updates.is_none() && (self.held || self.abandons());
                assert!(step == self.step || in_vain, "rank {} skips or repeats", self.rank);
                if let Some(told) = updates {
                    let known = *self.updates.get_or_insert(told);
                    assert_eq!(told, known, "rank {} is told other updates", self.rank);
                }
                let of = Numbers { step, batch, attempt, updates };
                self.doing = Doing::Batch { ticket, of };
            }
            RankMessage::Evaluate { ticket, task, step } => {
                self.doing = Doing::Parts { ticket, task, step, done: 0 };
                let parts = self.workload.evaluations()[task].parts;
                if parts_of(parts, self.rank, self.ranks).next().is_none() {
                    self.evaluated();
                }
            }
            RankMessage::Drive { .. } => self.ends.supervisor.tell(RankReply::Drove),
            RankMessage::Snapshot { slot } => {
                assert_eq!(self.saving, None, "two snapshots at a time");
                assert!(self.flying.is_empty(), "nobody knows what it would hold");
                self.saving = Some((slot, self.step, self.chain));
            }
            RankMessage::Stop => {}
        }
    }

    /// Hashes of this rank's records, which are what the step's are.
    fn learn(&mut self, slot: &BatchSlot, batch: u64, attempt: usize) -> Laid {
        let shape = self.workload.shape(batch, attempt);
        let records = records(&*self.workload, &shape, &self.lanes);
        assert_eq!(slot.filled, records.len());
        self.scalars.clear();
        let mut laid = Laid { hashes: Vec::new(), abandoned: self.abandons() };
        for (i, (micro_batch, program)) in records.into_iter().enumerate() {
            let purpose = Purpose::Train { step: batch, attempt, micro_batch };
            let wanted = expected(&*self.workload, purpose, program);
            assert_eq!(slot.record(i), wanted, "batch {batch} is another");
            let hash = hash(slot.record(i));
            let spike = if batch == SPIKE { 1e6 } else { 0.0 };
            let loss = spike + (hash >> 40) as f32 / 1e6;
            let words = vec![loss.to_bits(), (2.0 * loss).to_bits(), 4];
            self.scalars.push(RunScalars { micro_batch, program: program.0, words });
            laid.hashes.push((micro_batch, hash));
        }
        laid
    }

    fn meet(&mut self, all: Laid, of: Numbers, history: &mut History) {
        let Numbers { step, batch, attempt, updates } = of;
        // Some steps need a second attempt, and some have an update that is not finite.
        let overflow = step % 5 == 2 && attempt == 0;
        let held = updates.is_none() && self.held;
        let finite = !NOT_FINITE.contains(&batch);
        let skipped = all.abandoned || overflow || held || !finite;
        if !all.abandoned {
            self.held = overflow || held;
        }
        if !skipped {
            self.updates = self.updates.map(|updates| updates + 1);
            for (_, hash) in all.hashes {
                for word in &mut self.chain {
                    *word = Random::new(*word ^ hash).next().rotate_left(7) ^ step;
                }
                self.chain.rotate_left(1);
            }
        }
        if !all.abandoned && !self.held {
            self.step = step + 1;
            let before = history.insert((self.step, batch), self.chain);
            assert!(before.is_none_or(|b| b == self.chain), "step {step} has another result now");
        }
        // Updates wait for what is copied out.
        self.finish_saving();
        let fingerprint =
            |bucket: usize| if self.rank == 0 { self.chain[0] ^ bucket as u64 } else { 0 };
        let buckets = self.workload.layout().buckets.len();
        let outcome = StepOutcome {
            runs: self.scalars.clone(),
            norm: if finite { 1.0 } else { f64::NAN },
            skipped,
            overflow,
            held,
            abandoned: all.abandoned,
            fingerprint: (0..buckets).map(fingerprint).collect(),
            loader_ms: 0.0,
            reduce_ms: 0.0,
        };
        self.doing = Doing::Nothing;
        self.flying.push_back((self.batch.take().expect("the step has a batch"), outcome));
        self.ends.supervisor.tell(RankReply::Enqueued);
    }

    fn evaluate(&mut self, ticket: u64, task: usize, step: u64, done: usize) {
        if self.abandons() {
            return self.evaluated();
        }
        let slot = self.ends.full.try_recv().expect("it is ready");
        let mut done = done;
        if slot.ticket == ticket {
            let parts = self.workload.evaluations()[task].parts;
            let mut rest = parts_of(parts, self.rank, self.ranks).skip(done).peekable();
            for record in 0..slot.filled {
                let index = rest.next().expect("a record for every part");
                let purpose = Purpose::Evaluate { task, part: index };
                let wanted = expected(&*self.workload, purpose, ProgramId(1));
                assert_eq!(slot.record(record), wanted, "part {index} has another's record");
                let hash = hash(slot.record(record)) ^ self.chain[0];
                let loss_sum = (hash >> 40) as f64 / 1e6;
                let sums = vec![loss_sum, 4.0];
                let part = EvaluatorMessage::Part { step, task, index, sums };
                self.ends.evaluator.tell(part);
                done += 1;
            }
            self.doing = Doing::Parts { ticket, task, step, done };
            if rest.peek().is_none() {
                self.evaluated();
            }
        }
        self.hand_back(slot);
    }

    fn evaluated(&mut self) {
        self.doing = Doing::Nothing;
        self.ends.supervisor.tell(RankReply::Evaluated);
    }

    fn finish_saving(&mut self) {
        let Some((slot, step, chain)) = self.saving.take() else { return };
        self.save(slot, step, &chain);
        self.ends.supervisor.tell(RankReply::Snapped { ms: 1.0 });
    }

    fn save(&self, slot: usize, step: u64, chain: &Chain) {
        let slot = &self.slots[slot];
        let owners = self.workload.ownership(self.ranks);
        for bucket in 0..self.workload.layout().buckets.len() {
            let shard = owners.shard(bucket, self.rank);
            for region in FLAT {
                // SAFETY: the slot is lent to the ranks, and shards are apart.
                let cells: &mut [f32] = unsafe { slot.elements(region, &shard).as_mut_slice() };
                for (cell, i) in cells.iter_mut().zip(shard.clone()) {
                    *cell = element(chain, region, i);
                }
            }
        }
        if self.rank == 0 {
            // SAFETY: as above; states are rank 0's.
            let words: &mut [u64] = unsafe { slot.region(Region::States).as_mut_slice() };
            words[0] = step;
            words[1..STATE_WORDS].copy_from_slice(chain);
        }
    }

    /// Takes the chain, and believes it only if all of the content agrees and if it is a state that
    /// the run has been in.
    fn restore(&mut self, slot: usize, history: &History) {
        let slot = &self.slots[slot];
        // SAFETY: the slot is lent to the ranks, which only read it.
        let words: &[u64] = unsafe { slot.region(Region::States).as_slice() };
        self.step = words[0];
        self.chain.copy_from_slice(&words[1..STATE_WORDS]);
        let mut there = history.range((self.step, 0)..=(self.step, u64::MAX));
        let known = self.step == 0 || there.any(|(_, chain)| *chain == self.chain);
        assert!(known, "step {} was never in this state", self.step);
        for place in &self.workload.layout().placements {
            let range = place.start..place.start + place.elements;
            for region in FLAT {
                // SAFETY: as above.
                let cells: &[f32] = unsafe { slot.elements(region, &range).as_slice() };
                for (cell, i) in cells.iter().zip(range.clone()) {
                    let wanted = element(&self.chain, region, i);
                    assert_eq!(cell.to_bits(), wanted.to_bits(), "{region:?} {i} is damaged");
                }
            }
        }
    }
}

const FLAT: [Region; 3] = [Region::Masters, Region::Plane(0), Region::Plane(1)];

/// Element `i` of a region in the state `chain`.
fn element(chain: &Chain, region: Region, i: usize) -> f32 {
    if chain.iter().all(|&word| word == 0) {
        return 0.0;
    }
    let seed = chain.iter().fold(i as u64, |sum, word| sum.rotate_left(9) ^ word);
    let region = FLAT.iter().position(|flat| *flat == region).expect("a flat region");
    (Random::new(seed ^ (region as u64) << 60).next() >> 40) as f32
}

fn hash(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes"))
}
