//! Which snapshot slot is being used for what, and which one is filled next.
//!
//! Owns the headers of the slots, and the time that a run spends on them; ranks own the regions
//! while they fill them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::snapshot::{Slot, SlotFacts, SnapshotError};

#[cfg(test)]
mod tests;

/// What a slot is being used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Free,
    /// Ranks write it, or read it at the start.
    Filling,
    /// Lent to the checkpointer.
    Writing,
}

/// The slots of a run.
#[derive(Debug)]
pub(super) struct SlotTable {
    slots: Vec<Slot>,
    uses: Vec<Use>,
    /// Of the run, beside every state.
    identity: BTreeMap<String, String>,
    /// Of the last commit, by whichever engine.
    sequence: u64,
    /// Seconds: since when a run waits for a free slot.
    blocked_since: Option<f64>,
    wait_ms: f64,
}

impl SlotTable {
    pub(super) fn new(slots: Vec<Slot>, identity: BTreeMap<String, String>) -> Self {
        let committed = slots.iter().filter_map(|slot| slot.head().ok());
        let sequence = committed.map(|head| head.sequence).max().unwrap_or(0);
        let uses = vec![Use::Free; slots.len()];
        Self { uses, slots, identity, sequence, blocked_since: None, wait_ms: 0.0 }
    }

    /// Ranks take their state from `slot`.
    pub(super) fn lend(&mut self, slot: usize) {
        let committed = self.slots[slot].head().map_or(0, |head| head.sequence);
        self.sequence = self.sequence.max(committed);
        self.uses[slot] = Use::Filling;
    }

    /// Nobody uses `slot`; its content stays.
    pub(super) fn free(&mut self, slot: usize) {
        self.uses[slot] = Use::Free;
    }

    /// Takes the free slot with the oldest content to be filled: whoever starts after a crash
    /// finds the newest in the other. Without a free one the run waits from `now` (in seconds) to
    /// the call that finds one, and the wait is counted.
    pub(super) fn take_oldest(&mut self, now: f64) -> Option<usize> {
        let Some(slot) = self.take_if_free() else {
            self.waits_from(now);
            return None;
        };
        if let Some(since) = self.blocked_since.take() {
            self.wait_ms += (now - since) * 1e3;
        }
        Some(slot)
    }

    /// The run waits for a slot, or for the snapshot that is being taken, until it takes one.
    pub(super) fn waits_from(&mut self, now: f64) {
        self.blocked_since.get_or_insert(now);
    }

    /// Whether what they hold outlives the engine.
    pub(super) fn are_in_memory(&self) -> bool {
        self.slots.iter().all(|slot| slot.memory().is_some())
    }

    /// As [`Self::take_oldest`] for somebody who does not wait.
    pub(super) fn take_if_free(&mut self) -> Option<usize> {
        let free = (0..self.slots.len()).filter(|&i| self.uses[i] == Use::Free);
        let age = |i: &usize| self.slots[*i].head().map_or(0, |head| head.sequence);
        let slot = free.min_by_key(age)?;
        self.slots[slot].invalidate();
        self.uses[slot] = Use::Filling;
        Some(slot)
    }

    /// Every rank has filled `slot`, the slowest in `ms`: declares it good, and lends it to the
    /// checkpointer.
    ///
    /// # Errors
    /// As [`Slot::commit`].
    pub(super) fn commit(
        &mut self,
        slot: usize,
        (step, cursor): (u64, &Value),
        recovery: Value,
        ms: f64,
    ) -> Result<(), SnapshotError> {
        self.wait_ms += ms;
        self.sequence += 1;
        let facts = SlotFacts { recovery, identity: self.identity.clone() };
        self.slots[slot].commit_with(step, cursor, &facts, self.sequence)?;
        self.uses[slot] = Use::Writing;
        Ok(())
    }

    /// Milliseconds of waits and copies since this was last asked.
    pub(super) fn take_wait_ms(&mut self) -> f64 {
        std::mem::take(&mut self.wait_ms)
    }

    /// Whether the checkpointer has any.
    pub(super) fn any_writing(&self) -> bool {
        self.uses.contains(&Use::Writing)
    }
}
