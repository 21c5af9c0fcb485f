//! Snapshots: declared good, handed to the checkpointer, and what comes back from it.

use crate::checkpointer::{CheckpointerMessage, CheckpointerReply};
use crate::fault::{ActorName, Blame, Fault};
use crate::rank::RankReply;
use crate::supervisor::{Ending, SavedState, Supervisor};
use crate::telemetry::TelemetryMessage;

impl Supervisor {
    /// Every rank has filled its part of the slot.
    pub(super) fn snapped(&mut self, step: u64, to_disk: bool) -> Result<(), Fault> {
        let slot = self.filling.take().expect("a snapshot fills a slot");
        let took = |reply: &Option<RankReply>| match reply {
            Some(RankReply::Snapped { ms }) => *ms,
            _ => 0.0,
        };
        let longest_ms = self.replies.iter().map(took).fold(0.0, f64::max);
        let cursor = self.cursor(step);
        let recovery = self.recovery.to_value();
        let commit = self.slots.commit(slot, (step, &cursor), recovery, longest_ms);
        commit.map_err(|error| Fault::ours(ActorName::Supervisor, error))?;
        let message = if to_disk {
            self.saved_step = Some(step);
            let back_to = self.recovery.back_to(&self.schedule, step);
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
        if self.current.is_none() && self.filling.is_none() {
            self.advance();
        }
        Ok(())
    }

    fn at_the_end(&self) -> bool {
        self.back.is_none() && self.agenda.is_empty() && self.is_ending()
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

    /// Puts a checkpoint before the next step if somebody has asked for one; what is on disk or on
    /// its way there, and what may have to be given up, is not saved.
    pub(super) fn save_if_asked(&mut self) {
        let is_next = matches!(self.agenda.front(), Some((_, crate::schedule::Work::Step { .. })));
        if self.asked_to_save && is_next && self.done > 0 && self.recovery.bad() == 0 {
            self.asked_to_save = false;
            if self.saved_step != Some(self.done) {
                self.agenda.push_front((0, crate::schedule::Work::Save { step: self.done }));
            }
        }
    }
}
