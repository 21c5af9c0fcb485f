//! Snapshots: declared good, handed to the checkpointer, and what comes back from it.

use serde_json::Value;

use crate::checkpointer::{CheckpointerMessage, CheckpointerReply};
use crate::fault::{ActorName, Blame, Fault};
use crate::rank::RankMessage;
use crate::supervisor::{Ending, SavedState, Supervisor};
use crate::telemetry::TelemetryMessage;

/// A snapshot that ranks copy out while they go on.
#[derive(Debug)]
pub(super) struct Saving {
    slot: usize,
    step: u64,
    to_disk: bool,
    /// Where the run stood then.
    cursor: Value,
    recovery: Value,
    /// Where a roll-back would lead.
    back_to: u64,
    /// By rank: how long it took.
    ms: Vec<Option<f64>>,
}

impl Supervisor {
    /// Has what stands after `step` steps brought to disk, as soon as a slot is free. Returns
    /// whether one is.
    pub(super) fn save(&mut self, step: u64) -> bool {
        let now = self.clock.seconds();
        if self.saving.is_some() {
            self.slots.waits_from(now);
            return false;
        }
        let slot = self.slots.take_oldest(now);
        slot.map(|slot| self.fill(slot, step, true)).is_some()
    }

    /// Has it kept in memory, if a slot is free now. What would pass through a file outlives
    /// nobody, so that it would be copied for nothing.
    pub(super) fn snapshot(&mut self, step: u64) {
        if self.saving.is_none()
            && self.slots.are_in_memory()
            && let Some(slot) = self.slots.take_if_free()
        {
            self.fill(slot, step, false);
        }
    }

    /// Tells ranks to copy their state out. Nobody waits: whatever they are told next comes behind
    /// it, and changes nothing that is not copied yet.
    fn fill(&mut self, slot: usize, step: u64, to_disk: bool) {
        let (cursor, recovery) = (self.cursor(step), self.recovery.to_value());
        let back_to = self.recovery.back_to(&self.schedule, step);
        let ms = vec![None; self.ports.ranks.len()];
        self.saving = Some(Saving { slot, step, to_disk, cursor, recovery, back_to, ms });
        for port in &self.ports.ranks {
            port.tell(RankMessage::Snapshot { slot });
        }
    }

    /// A rank has filled its part of the slot; all have, perhaps.
    pub(super) fn snapped(&mut self, rank: usize, ms: f64) -> Result<(), Fault> {
        let ours = |what: String| Fault::ours(ActorName::Supervisor, what);
        let cell = self.saving.as_mut().and_then(|saving| saving.ms.get_mut(rank));
        match cell {
            Some(cell @ None) => *cell = Some(ms),
            _ => return Err(ours(format!("rank {rank} has filled a slot that nobody gave it"))),
        }
        let saving = self.saving.take_if(|saving| saving.ms.iter().all(Option::is_some));
        let Some(saving) = saving else { return Ok(()) };
        self.commit(saving)?;
        self.advance();
        Ok(())
    }

    /// Every rank has filled its part: declares the slot good and hands it on.
    fn commit(&mut self, saving: Saving) -> Result<(), Fault> {
        let Saving { slot, step, to_disk, cursor, recovery, back_to, ms } = saving;
        let longest_ms = ms.into_iter().flatten().fold(0.0, f64::max);
        let commit = self.slots.commit(slot, (step, &cursor), recovery, longest_ms);
        commit.map_err(|error| Fault::ours(ActorName::Supervisor, error))?;
        let message = if to_disk {
            self.saved_step = Some(step);
            let parent = self.on_disk.as_ref().map(|state| state.digest.clone());
            CheckpointerMessage::Save { slot, step, parent, back_to }
        } else {
            CheckpointerMessage::Seal { slot, step }
        };
        self.ports.checkpointer.tell(message);
        Ok(())
    }

    /// Where the run stands: the number of the next sample, which is all that a resume needs of its
    /// data, since order is a pure function; and what it has counted.
    fn cursor(&self, step: u64) -> serde_json::Value {
        let samples = self.workload.samples_before(self.recovery.batch(step));
        let mut cursor =
            serde_json::json!({ "step": step, "samples": samples, "tokens": self.tokens });
        if self.updates != step {
            cursor["updates"] = self.updates.into();
        }
        cursor
    }

    /// The checkpointer answers.
    pub(super) fn checkpointed(&mut self, reply: CheckpointerReply) -> Result<(), Fault> {
        match reply {
            CheckpointerReply::Saved { step, slot, digest, path, ms, .. } => {
                self.slots.free(slot);
                self.space = None;
                self.on_disk = Some(SavedState { step, digest });
                let (ms, path) = (ms as f64, path.display().to_string());
                self.ports.telemetry.tell(TelemetryMessage::Checkpoint { step, ms, path });
            }
            CheckpointerReply::Sealed { slot, .. } => self.slots.free(slot),
            CheckpointerReply::Rewound(state) => return self.rewound(state),
            CheckpointerReply::NotRewound { fault } => {
                self.fail(fault);
                return Ok(());
            }
            CheckpointerReply::Failed { slot, step, fault, no_space } => {
                self.slots.free(slot);
                if self.saved_step == Some(step) {
                    self.saved_step = None;
                }
                let is_last = step == self.done && self.at_the_end();
                if is_last && no_space {
                    self.no_space(fault);
                    return Ok(());
                }
                if fault.blame == Blame::Ours || is_last {
                    self.fail(fault);
                    return Ok(());
                }
                let what = format!("a checkpoint was not written, the run goes on: {fault}");
                self.ports.telemetry.tell(TelemetryMessage::Note { what });
            }
            CheckpointerReply::NotTidied { fault } => {
                self.ports.telemetry.tell(TelemetryMessage::Note { what: fault.to_string() });
            }
        }
        self.advance();
        Ok(())
    }

    fn at_the_end(&self) -> bool {
        self.back.is_none() && self.given.is_empty() && self.agenda.is_empty() && self.is_ending()
    }

    /// Whether no step comes any more.
    pub(super) fn is_ending(&self) -> bool {
        self.interrupted || self.stopping.is_some() || self.done >= self.schedule.steps
    }

    pub(super) fn end_when_saved(&mut self) {
        if self.slots.any_writing() {
            return;
        }
        if let Some(fault) = self.stopping.take() {
            return self.fail(fault);
        }
        let finished = self.done >= self.schedule.steps;
        self.end(if finished { Ending::Finished } else { Ending::Interrupted });
    }

    /// Whether the state after `step` steps is on disk or on its way there.
    fn is_saved(&self, step: u64) -> bool {
        let on_its_way = self.saving.as_ref().is_some_and(|s| s.to_disk && s.step == step);
        on_its_way || self.saved_step == Some(step)
    }

    /// Puts a checkpoint before the next step if somebody has asked for one; what is on disk or on
    /// its way there, and what may have to be given up, is not saved.
    pub(super) fn save_if_asked(&mut self) {
        let is_next = matches!(self.agenda.front(), Some((_, crate::schedule::Work::Step { .. })));
        if self.asked_to_save && is_next && self.done > 0 && self.recovery.bad() == 0 {
            self.asked_to_save = false;
            if !self.is_saved(self.done) {
                self.agenda.push_front((0, crate::schedule::Work::Save { step: self.done }));
            }
        }
    }
}
