//! Checkpointer: brings committed snapshot slots to disk while training goes on.
//!
//! A slot is lent to it by [`CheckpointerMessage::Save`] and free again when it answers; it owns
//! the folder of checkpoints all the time, so it also finds the state that a run goes back to. A
//! save that fails leaves the earlier checkpoints as they are, is told, and is over: whether to try
//! again is the supervisor's decision. It never touches a device, and sees time and files only
//! through [`Clock`] and the store's disk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::actor::{Actor, Flow, Port};
use crate::checkpoint::{About, CheckpointError, Saved, Store};
use crate::contract::Workload;
use crate::fault::{ActorName, Fault};
use crate::outside::Clock;
use crate::resume::{FirstState, ResumeError, earlier_state};
use crate::snapshot::{SlotView, SnapshotError, SnapshotLayout, SnapshotSlots};

#[cfg(test)]
mod tests;

/// The protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointerMessage {
    /// Write a committed slot as a checkpoint, then remove old ones.
    Save {
        /// Lent until the answer.
        slot: usize,
        /// The step that was committed there; the cursor stands in the slot.
        step: u64,
        /// The checkpoint from which the run came here.
        parent: Option<String>,
        /// Where a roll-back would lead: a checkpoint of up to so many steps stays.
        back_to: u64,
    },
    /// Compute the digest of a committed slot that does not go to disk, and store it there, so that
    /// a restart can check it.
    Seal {
        /// Lent until the answer.
        slot: usize,
        /// The step that was committed there.
        step: u64,
    },
    /// Find the newest good state of at most `step` steps, in memory or on disk, put it into a slot
    /// and give up all that lies after it. No slot is lent to anybody until the answer.
    Rewind {
        /// Steps done.
        step: u64,
    },
    /// Done.
    Stop,
}

/// What it tells the supervisor: exactly one `Saved`, `Sealed` or `Failed` for every request, and
/// one `Rewound` or `NotRewound` for a rewind.
#[derive(Debug, Clone, PartialEq)]
pub enum CheckpointerReply {
    /// The checkpoint is on disk, verified. The slot is free.
    Saved {
        /// Its step.
        step: u64,
        /// The slot that is free, and sealed.
        slot: usize,
        /// Digest of the state.
        digest: String,
        /// Its folder.
        path: PathBuf,
        /// Bytes written.
        bytes: u64,
        /// Time it took.
        ms: u64,
        /// Steps of the checkpoints that were removed.
        removed: Vec<u64>,
    },
    /// The slot is sealed, and free.
    Sealed {
        /// Its step.
        step: u64,
        /// The slot.
        slot: usize,
        /// Digest of the state.
        digest: String,
        /// Time it took.
        ms: u64,
    },
    /// It did not work; earlier checkpoints are as they were. The slot is free.
    Failed {
        /// The step.
        step: u64,
        /// The slot.
        slot: usize,
        /// Why. Blames us if the slot did not hold that step or changed meanwhile.
        fault: Fault,
        /// The disk has no space: somebody may make some.
        no_space: bool,
    },
    /// The state to go on from.
    Rewound(FirstState),
    /// There is none.
    NotRewound {
        /// Why.
        fault: Fault,
    },
    /// The checkpoint was saved, but old ones could not be removed. Comes before its `Saved`.
    NotTidied {
        /// Why.
        fault: Fault,
    },
}

/// What every checkpoint of a run says beside its state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunFacts {
    /// Digest of the resolved configuration.
    pub config_digest: String,
    /// What a resume must reproduce to get the same bits.
    pub identity: BTreeMap<String, String>,
    /// What is true of a checkpoint that does not name a key, since builds that wrote it did not
    /// know the key.
    pub assumed: BTreeMap<String, String>,
    /// What its numbers come from; another one is told, and not refused.
    pub provenance: BTreeMap<String, String>,
}

/// The actor.
pub struct Checkpointer {
    store: Store,
    slots: Arc<SnapshotSlots>,
    layout: Arc<SnapshotLayout>,
    clock: Arc<dyn Clock>,
    facts: RunFacts,
    workload: Arc<dyn Workload>,
    supervisor: Port<CheckpointerReply>,
}

impl Checkpointer {
    /// Writes to `store`, whose leftovers the start has cleared ([`Store::recover`]).
    pub fn new(
        store: Store,
        slots: Arc<SnapshotSlots>,
        layout: Arc<SnapshotLayout>,
        clock: Arc<dyn Clock>,
        facts: RunFacts,
        workload: Arc<dyn Workload>,
        supervisor: Port<CheckpointerReply>,
    ) -> Self {
        Self { store, slots, layout, clock, facts, workload, supervisor }
    }

    fn save(
        &self,
        slot: usize,
        step: u64,
        parent: Option<String>,
        back_to: u64,
    ) -> CheckpointerReply {
        let start = self.clock.monotonic();
        let about = About {
            config_digest: self.facts.config_digest.clone(),
            identity: self.facts.identity.clone(),
            provenance: self.facts.provenance.clone(),
            parent,
            saved_unix_ms: self.clock.unix_ms(),
        };
        match self.with_slot(slot, step, |view| self.store.save(view, &about)) {
            Ok(Saved { digest, path, bytes, .. }) => {
                let removed = self.store.retain(step, back_to).unwrap_or_else(|e| {
                    let fault = Fault::world(self.name(), format!("removing checkpoints: {e}"));
                    self.supervisor.tell(CheckpointerReply::NotTidied { fault });
                    Vec::new()
                });
                let ms = self.ms_since(start);
                CheckpointerReply::Saved { step, slot, digest, path, bytes, ms, removed }
            }
            Err(e) => self.failed(slot, step, &e),
        }
    }

    fn seal(&self, slot: usize, step: u64) -> CheckpointerReply {
        let start = self.clock.monotonic();
        match self.with_slot(slot, step, |view| Ok(view.slot().seal()?)) {
            Ok(digest) => {
                CheckpointerReply::Sealed { step, slot, digest, ms: self.ms_since(start) }
            }
            Err(e) => self.failed(slot, step, &e),
        }
    }

    fn rewind(&self, step: u64) -> CheckpointerReply {
        let Self { store, slots, layout, facts, .. } = self;
        match earlier_state(&*self.workload, store, slots, layout, facts, step) {
            Ok(state) => CheckpointerReply::Rewound(state),
            Err(e) => {
                let what = format!("going back to step {step}: {e}");
                let fault = match e {
                    ResumeError::NothingEarlier { .. } => Fault::decided(self.name(), what),
                    ResumeError::NothingGood { .. } => Fault::lasting(self.name(), what),
                    _ => Fault::world(self.name(), what),
                };
                CheckpointerReply::NotRewound { fault }
            }
        }
    }

    /// Works on the slot if it holds that step.
    fn with_slot<T>(
        &self,
        slot: usize,
        step: u64,
        work: impl FnOnce(&SlotView<'_>) -> Result<T, CheckpointError>,
    ) -> Result<T, CheckpointError> {
        let slot = self.slots.slot(slot, &self.layout);
        let view = slot.view()?;
        if view.head().step != step {
            let what = format!("it holds step {}, not {step}", view.head().step);
            return Err(SnapshotError::Damaged { slot: slot.index(), what }.into());
        }
        work(&view)
    }

    fn failed(&self, slot: usize, step: u64, why: &CheckpointError) -> CheckpointerReply {
        let fault = match why {
            CheckpointError::Snapshot(e) => Fault::ours(self.name(), e),
            e => Fault::world(self.name(), format!("saving step {step}: {e}")),
        };
        CheckpointerReply::Failed { step, slot, fault, no_space: why.is_no_space() }
    }

    fn ms_since(&self, start: std::time::Duration) -> u64 {
        let spent = self.clock.monotonic().saturating_sub(start);
        u64::try_from(spent.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Actor for Checkpointer {
    type Message = CheckpointerMessage;

    fn name(&self) -> ActorName {
        ActorName::Checkpointer
    }

    fn apply(&mut self, message: CheckpointerMessage) -> Result<Flow, Fault> {
        let reply = match message {
            CheckpointerMessage::Save { slot, step, parent, back_to } => {
                self.save(slot, step, parent, back_to)
            }
            CheckpointerMessage::Seal { slot, step } => self.seal(slot, step),
            CheckpointerMessage::Rewind { step } => self.rewind(step),
            CheckpointerMessage::Stop => return Ok(Flow::Stop),
        };
        self.supervisor.tell(reply);
        Ok(Flow::Continue)
    }
}
