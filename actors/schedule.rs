//! What comes after what: the agenda of a run, a pure function of its recipe.

use serde::{Deserialize, Serialize};

use crate::contract::EvaluationTask;

#[cfg(test)]
mod tests;

/// Steps of which orders are given, at most, before the first of them is done: those that ranks are
/// given, and one whose data are made ready meanwhile.
pub const fn ahead(depth: usize) -> u64 {
    1 + depth as u64
}

/// How often things happen, in steps. 0 means never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Steps of the whole run.
    pub steps: u64,
    /// Held-out tasks that do not say themselves.
    pub evaluate_every: u64,
    /// Snapshots to disk. One is taken at the end in any case.
    pub checkpoint_every: u64,
    /// Snapshots that stay in memory, between those that go to disk.
    pub memory_every: u64,
    /// Conversations (samples).
    pub drive_every: u64,
    /// Steps that ranks are given before the first of them has said how it went: from 1 to
    /// [`crate::outcome::DEPTH_MAX`].
    pub depth: usize,
}

/// One thing that all ranks do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// An optimizer step.
    Step {
        /// The step, from 0.
        step: u64,
        /// How often it overflowed before.
        attempt: usize,
    },
    /// A held-out task.
    Evaluate {
        /// Its position.
        task: usize,
        /// Steps done.
        step: u64,
    },
    /// A conversation.
    Drive {
        /// Steps done.
        step: u64,
    },
    /// A snapshot that stays in memory.
    Snapshot {
        /// Steps done.
        step: u64,
    },
    /// A snapshot that goes to disk.
    Save {
        /// Steps done.
        step: u64,
    },
}

impl Schedule {
    /// What follows when `done` steps are done, before the next step: tasks, conversation,
    /// snapshot.
    pub fn after(&self, done: u64, tasks: &[EvaluationTask]) -> Vec<Work> {
        let due = |every: u64| every > 0 && done > 0 && done.is_multiple_of(every);
        let last = done == self.steps;
        let mut works = Vec::new();
        for (task, about) in tasks.iter().enumerate() {
            let every = about.every.unwrap_or(self.evaluate_every);
            if due(every) || (last && every > 0) {
                works.push(Work::Evaluate { task, step: done });
            }
        }
        if due(self.drive_every) || (last && self.drive_every > 0) {
            works.push(Work::Drive { step: done });
        }
        if due(self.checkpoint_every) || last {
            works.push(Work::Save { step: done });
        } else if due(self.memory_every) {
            works.push(Work::Snapshot { step: done });
        }
        works
    }

    /// The last snapshot that is taken, on disk or in memory, when up to `done` steps are done. The
    /// first state counts as one.
    pub fn snapshot_at_or_before(&self, done: u64) -> u64 {
        let last = |every: u64| done.checked_div(every).map_or(0, |times| times * every);
        last(self.checkpoint_every).max(last(self.memory_every))
    }
}
