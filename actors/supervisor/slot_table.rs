//! Which snapshot slot is being used for what, and which one is filled next.
//!
//! Owns the headers of the slots; ranks own the regions while they fill them.

use serde_json::Value;

use crate::snapshot::{Slot, SnapshotError};

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
    /// Of the last commit, by whichever engine.
    sequence: u64,
}

impl SlotTable {
    pub(super) fn new(slots: Vec<Slot>) -> Self {
        let committed = slots.iter().filter_map(|slot| slot.head().ok());
        let sequence = committed.map(|head| head.sequence).max().unwrap_or(0);
        Self { uses: vec![Use::Free; slots.len()], slots, sequence }
    }

    /// Ranks take their state from `slot`.
    pub(super) fn lend(&mut self, slot: usize) {
        self.uses[slot] = Use::Filling;
    }

    /// Nobody uses `slot`; its content stays.
    pub(super) fn free(&mut self, slot: usize) {
        self.uses[slot] = Use::Free;
    }

    /// Takes the free slot with the oldest content to be filled: whoever starts after a crash
    /// finds the newest in the other.
    pub(super) fn take_oldest(&mut self) -> Option<usize> {
        let free = (0..self.slots.len()).filter(|&i| self.uses[i] == Use::Free);
        let age = |i: &usize| self.slots[*i].head().map_or(0, |head| head.sequence);
        let slot = free.min_by_key(age)?;
        self.slots[slot].invalidate();
        self.uses[slot] = Use::Filling;
        Some(slot)
    }

    /// Every rank has filled `slot`: declares it good, and lends it to the checkpointer.
    ///
    /// # Errors
    /// As [`Slot::commit`].
    pub(super) fn commit(
        &mut self,
        slot: usize,
        step: u64,
        cursor: &Value,
    ) -> Result<(), SnapshotError> {
        self.sequence += 1;
        self.slots[slot].commit(step, cursor, self.sequence)?;
        self.uses[slot] = Use::Writing;
        Ok(())
    }

    /// Whether the checkpointer has any.
    pub(super) fn any_writing(&self) -> bool {
        self.uses.contains(&Use::Writing)
    }
}
