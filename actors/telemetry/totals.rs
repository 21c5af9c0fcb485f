//! What a run adds up to: pure sums over the lines of its log.
//!
//! The log is the only memory: an earlier process, a rewind and a restart are all "sum again".

use serde::{Deserialize, Serialize};

use crate::report::{Counts, EvaluationReport, StepReport};
use crate::run_folder::log::Line;

/// A loss and the step that had it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossAt {
    /// Steps done.
    pub step: u64,
    /// Mean loss per target, in nats.
    pub loss: f64,
}

/// Final and best held-out loss of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSummary {
    /// Name of the task.
    pub task: String,
    /// The last evaluation, where it was finite.
    pub last: Option<LossAt>,
    /// The lowest finite loss.
    pub best: Option<LossAt>,
}

/// Final and best training loss of one of several tracks, or of one loss of a track.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrackSummary {
    /// Its name in the lines of steps.
    pub track: String,
    /// The last step that it was in, where its loss was finite.
    pub last: Option<LossAt>,
    /// The lowest finite loss.
    pub best: Option<LossAt>,
}

/// The last checkpoint on disk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LastCheckpoint {
    /// Steps done in it.
    pub step: u64,
    /// Milliseconds from the request to its last sync.
    pub ms: f64,
    /// When it was there, in milliseconds since the Unix epoch; older logs do not say.
    pub unix_ms: Option<u64>,
}

/// `summary.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Steps done.
    pub steps: u64,
    /// Tokens (or other elements that the workload counts).
    pub tokens: u64,
    /// Training loss of the last step; null if it was not finite, or without a step.
    pub final_loss: Option<f64>,
    /// Lowest training loss of a step.
    pub best_loss: Option<f64>,
    /// The step that had it.
    pub best_step: Option<u64>,
    /// By track, in the order of their first steps; none where there is one loss.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tracks: Vec<TrackSummary>,
    /// By task, in the order of their first evaluations.
    pub evaluations: Vec<TaskSummary>,
    /// Updates skipped for a non-finite norm or an overflow.
    pub skipped_updates: u64,
    /// Roll-backs after bad updates.
    #[serde(default)]
    pub rollbacks: u64,
    /// Seconds that the processes of this run have lived, together; of one that was killed, all
    /// that the log shows.
    pub wall_time_s: f64,
    /// Time in accepted steps over wall time, 0 to 1.
    pub goodput: f64,
    /// Steps that were done after these and are not saved: they are done again, if the run goes on.
    #[serde(default)]
    pub unsaved_steps: u64,
    /// Digest of the state after these steps, which a checkpoint holds.
    pub digest: Option<String>,
}

/// The sums.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    last: Option<LossAt>,
    best: Option<LossAt>,
    tokens: u64,
    skipped_updates: u64,
    rollbacks: u64,
    accepted_s: f64,
    tracks: Vec<TrackSummary>,
    tasks: Vec<TaskSummary>,
    wall_time_s: f64,
    /// Seconds of the steps since the last time line: a process that was killed has lived so long.
    since_s: f64,
    counts: Counts,
    checkpoint: Option<LastCheckpoint>,
}

impl Totals {
    /// Adds one line.
    pub fn add(&mut self, line: &Line) {
        match line {
            Line::Time { wall_time_s, counts, .. } => {
                self.wall_time_s = *wall_time_s;
                self.since_s = 0.0;
                self.counts.raise_to(counts);
            }
            Line::Step(report) => self.add_step(report),
            Line::Evaluate(report) => self.add_evaluation(report),
            // Numbered: one that is decided again, after a kill, is the same one.
            Line::RollBack(report) => {
                self.rollbacks = report.number;
                self.counts.rollbacks = self.counts.rollbacks.max(report.number);
            }
            Line::Checkpoint { step, ms, unix_ms, .. } => {
                self.checkpoint = Some(LastCheckpoint { step: *step, ms: *ms, unix_ms: *unix_ms });
            }
            Line::Note { .. } => {}
        }
    }

    fn add_step(&mut self, report: &StepReport) {
        let at = LossAt { step: report.step, loss: report.loss };
        self.last = Some(at);
        self.best = better(self.best, at);
        for (name, loss) in &report.losses {
            self.add_track(name, LossAt { step: report.step, loss: *loss });
        }
        self.counts.tokens += report.tokens.saturating_sub(self.tokens);
        self.counts.skipped_updates += u64::from(report.skipped);
        self.tokens = report.tokens;
        self.since_s += report.step_ms / 1e3;
        if report.skipped {
            self.skipped_updates += 1;
        } else {
            self.accepted_s += report.step_ms / 1e3;
        }
    }

    fn add_track(&mut self, name: &str, at: LossAt) {
        let known = self.tracks.iter().position(|track| track.track == name);
        let index = known.unwrap_or_else(|| {
            let track = name.to_owned();
            self.tracks.push(TrackSummary { track, last: None, best: None });
            self.tracks.len() - 1
        });
        let track = &mut self.tracks[index];
        track.last = at.loss.is_finite().then_some(at);
        track.best = better(track.best, at);
    }

    fn add_evaluation(&mut self, report: &EvaluationReport) {
        let at = LossAt { step: report.step, loss: report.loss };
        let known = self.tasks.iter().position(|task| task.task == report.task);
        let index = known.unwrap_or_else(|| {
            let task = report.task.clone();
            self.tasks.push(TaskSummary { task, last: None, best: None });
            self.tasks.len() - 1
        });
        let task = &mut self.tasks[index];
        task.last = at.loss.is_finite().then_some(at);
        task.best = better(task.best, at);
    }

    /// Steps done.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.last.map_or(0, |last| last.step)
    }

    /// Tokens of the state.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// What the run has counted over its whole life.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Counts what is no line of its own: the next time line must follow before any rewind.
    pub fn counts_mut(&mut self) -> &mut Counts {
        &mut self.counts
    }

    /// The last checkpoint on disk.
    #[must_use]
    pub fn checkpoint(&self) -> Option<LastCheckpoint> {
        self.checkpoint
    }

    /// Wall time of the run in seconds: at its last time line, and the steps after it.
    #[must_use]
    pub fn wall_time_s(&self) -> f64 {
        self.wall_time_s + self.since_s
    }

    /// Time in accepted steps over wall time, which every step is a part of: only a rounding error
    /// can be more than 1.
    #[must_use]
    pub fn goodput(&self, wall_time_s: f64) -> f64 {
        if wall_time_s > 0.0 { (self.accepted_s / wall_time_s).min(1.0) } else { 0.0 }
    }

    /// The summary of the run.
    #[must_use]
    pub fn summary(&self, wall_time_s: f64, digest: Option<String>) -> Summary {
        Summary {
            steps: self.step(),
            tokens: self.tokens,
            final_loss: self.last.map(|last| last.loss).filter(|loss| loss.is_finite()),
            best_loss: self.best.map(|best| best.loss),
            best_step: self.best.map(|best| best.step),
            tracks: self.tracks.clone(),
            evaluations: self.tasks.clone(),
            skipped_updates: self.skipped_updates,
            rollbacks: self.rollbacks,
            wall_time_s,
            goodput: self.goodput(wall_time_s),
            unsaved_steps: 0,
            digest,
        }
    }
}

fn better(best: Option<LossAt>, at: LossAt) -> Option<LossAt> {
    if !at.loss.is_finite() || best.is_some_and(|best| best.loss <= at.loss) {
        return best;
    }
    Some(at)
}
