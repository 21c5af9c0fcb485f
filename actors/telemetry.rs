//! Telemetry: what a run tells the outside. Metrics, log lines, progress, the summary.
//!
//! Owns `log.jsonl` and `fingerprints.jsonl`, the registry of metrics and the totals of the run. It
//! decides nothing: a warning is a line, not an action. A disk that is full for a while costs no
//! line of the log: lines wait in memory, up to a limit. Starting, restarting and resuming are one
//! path: read the log, go on.

pub mod metrics;
pub mod resources;
pub mod status;
#[cfg(test)]
mod tests;
pub mod totals;

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::actor::{Actor, Flow, Port};
use crate::fault::{ActorName, Fault};
use crate::outside::{Clock, Disk, DiskError};
use crate::recovery::Skips;
use crate::report::{Counts, EvaluationReport, RollBackReport, StepReport};
use crate::run_folder::log::{BucketLine, Line, Log, for_each_line};
use crate::run_folder::replace_json;
use crate::supervisor::SavedState;

use metrics::Metrics;
use resources::{Floors, Resources, Watch};
use status::{RunState, Status};
use totals::{LastCheckpoint, Summary, Totals};

/// Lines kept while the disk takes none: an hour of steps at one per second, and as many again
/// for faster runs. A line is about 1 KiB, so this is 8 MiB.
pub const BACKLOG_LINES: usize = 8 * 1024;

/// How much wall time without a step a killed process may leave out of the books; an evaluation is
/// followed by a time line.
const TIME_LINE_EVERY: Duration = Duration::from_secs(10);

/// What telemetry is told.
#[derive(Debug, Clone)]
pub enum TelemetryMessage {
    /// A step is done.
    Step(StepReport),
    /// An evaluation is done.
    Evaluation(EvaluationReport),
    /// The run has gone back after bad updates; its [`Self::RewindLog`] came before.
    RollBack(RollBackReport),
    /// An update was bad, and was borne.
    Bad {
        /// Why.
        what: String,
    },
    /// Something that a person should know.
    Note {
        /// One sentence.
        what: String,
    },
    /// A checkpoint is on disk, verified.
    Checkpoint {
        /// Steps done in it.
        step: u64,
        /// Milliseconds from the request to its last sync.
        ms: f64,
        /// Its folder.
        path: String,
    },
    /// The run continues from `step`: later lines are void, and so are all lines from the first
    /// step on that did not learn from the batch that `skips` give it: they are of a future that
    /// was given up, by a process that ended before its log said so.
    RewindLog {
        /// Steps done in the state that the run continues from.
        step: u64,
        /// Data that was passed over.
        skips: Skips,
    },
    /// The run is in another state now.
    State(RunState),
    /// The parent process has started this engine in the place of one that ended.
    EngineRestarted {
        /// Why that one ended.
        why: String,
    },
    /// An actor failed and was started again.
    Restarted {
        /// Which one, and why.
        fault: Fault,
    },
    /// A few seconds have passed.
    Tick,
    /// The run ends: write the summary. Nothing comes after this.
    Finish {
        /// What the disk holds of the run: no more is claimed.
        saved: Option<SavedState>,
        /// Who wants to know the summary.
        told: Port<Summary>,
    },
}

/// Shown every line as it is logged.
pub type Observer = Box<dyn FnMut(&Line) + Send>;

/// What telemetry needs to start.
pub struct TelemetrySetup {
    /// The log file.
    pub log: PathBuf,
    /// The file of the summary.
    pub summary: PathBuf,
    /// The file of the fingerprints of buckets.
    pub fingerprints: PathBuf,
    /// The steps after which those are recorded.
    pub recorded: Box<dyn Fn(u64) -> bool + Send>,
    /// When to warn about memory and disk.
    pub floors: Floors,
    /// Measures memory and disk.
    pub probe: Box<dyn FnMut() -> Resources + Send>,
    /// The registry; it outlives a restart of telemetry.
    pub metrics: Metrics,
    /// What `/healthz` shows; it outlives a restart of telemetry.
    pub status: Arc<Status>,
    /// Sees every line.
    pub observer: Observer,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where the log and the summary are.
    pub disk: Arc<dyn Disk>,
}

impl fmt::Debug for TelemetrySetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelemetrySetup").field("log", &self.log).finish_non_exhaustive()
    }
}

/// The actor.
pub struct Telemetry {
    setup: TelemetrySetup,
    log: Log,
    buckets: Log<BucketLine>,
    backlog: VecDeque<Line>,
    totals: Totals,
    watch: Watch,
    started: Duration,
    earlier_s: f64,
    timed: Duration,
    waiting: bool,
    /// A rewind that the disk has refused so far: comes before the next line.
    rewind: Option<(u64, Skips)>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("setup", &self.setup).finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Opens the log, takes the totals of what is in it, and writes a time line.
    ///
    /// # Errors
    /// A fault of the world: the log cannot be opened, read or written.
    pub fn start(setup: TelemetrySetup) -> Result<Self, Fault> {
        let mut totals = Totals::default();
        let (log, unreadable) =
            Log::open(setup.disk.clone(), &setup.log, |line| totals.add(line)).map_err(world)?;
        // Whatever of it cannot be read names no bucket.
        let (buckets, _unreadable) =
            Log::open(setup.disk.clone(), &setup.fingerprints, |_| ()).map_err(world)?;
        setup.metrics.resume(&totals);
        let now = setup.clock.monotonic();
        let mut telemetry = Self {
            log,
            buckets,
            backlog: VecDeque::new(),
            earlier_s: totals.wall_time_s(),
            totals,
            watch: Watch::new(setup.floors),
            started: now,
            timed: now,
            waiting: false,
            rewind: None,
            setup,
        };
        telemetry.publish_time()?;
        if unreadable > 0 {
            telemetry.note(format!("{unreadable} lines of the log cannot be read"))?;
        }
        Ok(telemetry)
    }

    /// Counts a line, shows it, and appends it. While the disk refuses, lines wait for a tick.
    fn publish(&mut self, line: Line) -> Result<(), Fault> {
        self.totals.add(&line);
        self.setup.metrics.counts(self.totals.counts());
        (self.setup.observer)(&line);
        self.backlog.push_back(line);
        if self.waiting && self.backlog.len() < BACKLOG_LINES {
            self.setup.metrics.log_backlog(self.backlog.len());
            return Ok(());
        }
        self.write_backlog()
    }

    fn publish_time(&mut self) -> Result<(), Fault> {
        self.timed = self.setup.clock.monotonic();
        let unix_ms = self.setup.clock.unix_ms();
        let counts = self.totals.counts().clone();
        self.publish(Line::Time { unix_ms, wall_time_s: self.wall_time_s(), counts })
    }

    /// Counts what is no line of its own, where no rewind takes it back.
    fn count(&mut self, add: impl FnOnce(&mut Counts)) -> Result<(), Fault> {
        add(self.totals.counts_mut());
        self.publish_time()
    }

    /// Records what a step made of every bucket. What the disk refuses is noted, and given up.
    fn record(&mut self, report: &StepReport) -> Result<(), Fault> {
        let StepReport { step, buckets, .. } = report;
        if buckets.is_empty() || !(self.setup.recorded)(*step) {
            return Ok(());
        }
        match self.buckets.append(&BucketLine { step: *step, buckets: buckets.clone() }) {
            Ok(()) => Ok(()),
            Err(error) => self.note(format!("{error}; fingerprints of buckets are not recorded")),
        }
    }

    fn note(&mut self, what: String) -> Result<(), Fault> {
        self.publish(Line::Note { step: self.totals.step(), what })
    }

    /// Appends what waits. A disk that refuses is noted once; a full backlog is a fault.
    fn write_backlog(&mut self) -> Result<(), Fault> {
        let mut refused = self.rewind_log().err();
        while refused.is_none()
            && let Some(line) = self.backlog.front()
        {
            match self.log.append(line) {
                Ok(()) => drop(self.backlog.pop_front()),
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        self.setup.metrics.log_backlog(self.backlog.len());
        let waited = std::mem::replace(&mut self.waiting, refused.is_some());
        let Some(error) = refused else { return Ok(()) };
        if self.backlog.len() >= BACKLOG_LINES {
            let what = format!("{error}, and {BACKLOG_LINES} lines wait already");
            return Err(Fault::world(ActorName::Telemetry, what));
        }
        if !waited {
            self.note(format!("{error}; lines wait in memory until it can be written"))?;
        }
        Ok(())
    }

    fn rewind(&mut self, step: u64, skips: Skips) -> Result<(), Fault> {
        // What the lines that go have counted.
        self.publish_time()?;
        self.backlog.retain(|line| line.step().is_none_or(|of| of <= step));
        let earlier = self.rewind.take().map_or(step, |(earlier, _)| earlier);
        self.rewind = Some((step.min(earlier), skips));
        self.setup.status.step_done(step, self.setup.clock.monotonic());
        self.write_backlog()
    }

    /// Drops what a rewind has made void. What waits came after it.
    fn rewind_log(&mut self) -> Result<(), DiskError> {
        let Some((step, skips)) = &self.rewind else { return Ok(()) };
        let mut totals = Totals::default();
        // The last step that counts.
        let mut last = *step;
        let is_void = |line: &Line| {
            if let Line::Step(report) = line
                && report.batch != skips.other_batch(report.step - 1)
            {
                last = last.min(report.step - 1);
            }
            line.step().is_some_and(|of| of > last)
        };
        let rewound = self.log.drop_lines(is_void, |line| totals.add(line))?;
        self.buckets.rewind(last, |_| ())?;
        self.rewind = None;
        if rewound.unreadable > 0 {
            let what =
                format!("dropped {} lines of the log that cannot be read", rewound.unreadable);
            let line = Line::Note { step: totals.step(), what };
            (self.setup.observer)(&line);
            self.backlog.push_front(line);
        }
        for line in &self.backlog {
            totals.add(line);
        }
        self.totals = totals;
        self.setup.metrics.resume(&self.totals);
        Ok(())
    }

    fn tick(&mut self) -> Result<(), Fault> {
        self.setup.metrics.upkeep();
        let resources = (self.setup.probe)();
        self.setup.metrics.resources(&resources);
        let wall_time_s = self.wall_time_s();
        self.setup.metrics.goodput(wall_time_s, self.totals.goodput(wall_time_s));
        for warning in self.watch.look(&resources) {
            self.note(warning)?;
        }
        if self.setup.clock.monotonic().saturating_sub(self.timed) >= TIME_LINE_EVERY {
            self.publish_time()?;
        }
        self.write_backlog()
    }

    /// What the run had added up to when so many steps were done.
    fn totals_at(&self, step: u64) -> Totals {
        let mut totals = Totals::default();
        let mut add = |line: &Line| {
            if line.step().is_none_or(|of| of <= step) {
                totals.add(line);
            }
        };
        // A line that cannot be read was reported when the log was opened.
        let _reported = for_each_line(&*self.setup.disk, &self.setup.log, |line| add(&line));
        self.backlog.iter().for_each(add);
        totals
    }

    fn wall_time_s(&self) -> f64 {
        let here = self.setup.clock.monotonic().saturating_sub(self.started);
        self.earlier_s + here.as_secs_f64()
    }

    fn finish(&mut self, saved: Option<SavedState>, told: &Port<Summary>) -> Result<(), Fault> {
        self.publish_time()?;
        self.write_backlog()?;
        self.log.sync().map_err(world)?;
        let step = saved.as_ref().map_or(0, |saved| saved.step);
        let lost = self.totals.step().saturating_sub(step);
        let of_saved = if lost > 0 { self.totals_at(step) } else { self.totals.clone() };
        let digest = saved.map(|saved| saved.digest);
        let summary =
            Summary { unsaved_steps: lost, ..of_saved.summary(self.wall_time_s(), digest) };
        replace_json(&*self.setup.disk, &self.setup.summary, &summary).map_err(world)?;
        told.tell(summary);
        Ok(())
    }
}

fn world(error: DiskError) -> Fault {
    Fault::world(ActorName::Telemetry, error)
}

impl Actor for Telemetry {
    type Message = TelemetryMessage;

    fn name(&self) -> ActorName {
        ActorName::Telemetry
    }

    fn apply(&mut self, message: TelemetryMessage) -> Result<Flow, Fault> {
        let now = self.setup.clock.monotonic();
        match message {
            TelemetryMessage::Step(report) => {
                self.setup.metrics.step(&report);
                self.setup.status.step_done(report.step, now);
                // The last time line has a part of this step already: time and step are told apart
                // by another, or a reader of the log would count that part twice.
                let began = now.saturating_sub(Duration::from_secs_f64(report.step_ms / 1e3));
                self.record(&report)?;
                self.publish(Line::Step(report))?;
                if began < self.timed {
                    self.publish_time()?;
                }
            }
            TelemetryMessage::Evaluation(report) => {
                self.setup.metrics.evaluation(&report);
                self.publish(Line::Evaluate(report))?;
                self.publish_time()?;
            }
            TelemetryMessage::RollBack(report) => {
                self.publish(Line::RollBack(report))?;
            }
            TelemetryMessage::Bad { what } => {
                self.count(|counts| counts.bad_updates += 1)?;
                self.note(format!("a bad update: {what}"))?;
            }
            TelemetryMessage::Note { what } => self.note(what)?,
            TelemetryMessage::Checkpoint { step, ms, path } => {
                let unix_ms = Some(self.setup.clock.unix_ms());
                self.setup.metrics.checkpoint(LastCheckpoint { step, ms, unix_ms });
                self.publish(Line::Checkpoint { step, ms, path, unix_ms })?;
            }
            TelemetryMessage::RewindLog { step, skips } => self.rewind(step, skips)?,
            TelemetryMessage::State(state) => self.setup.status.enter(state, now),
            TelemetryMessage::EngineRestarted { why } => {
                self.count(|counts| counts.engine_restarts += 1)?;
                self.note(format!("the engine was started again: {why}"))?;
            }
            TelemetryMessage::Restarted { fault } => {
                let actor = fault.actor.to_string();
                self.count(|counts| *counts.actor_restarts.entry(actor).or_default() += 1)?;
                self.note(format!("{} was restarted: {}", fault.actor, fault.what))?;
            }
            TelemetryMessage::Tick => self.tick()?,
            TelemetryMessage::Finish { saved, told } => {
                self.finish(saved, &told)?;
                return Ok(Flow::Stop);
            }
        }
        Ok(Flow::Continue)
    }
}
