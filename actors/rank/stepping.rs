//! How a rank takes a step: gives all of it to the device, and reads later how it went.

use std::ops::Range;
use std::sync::Arc;

use crossbeam::channel::RecvTimeoutError;
use octet_kernels::device::{HELD, OVERFLOW};
use octet_kernels::ops::Stream;

use crate::actor::Actor;
use crate::agreement::UPDATE;
use crate::contract::StepShape;
use crate::crew::StepInput;
use crate::fault::{ActorName, Fault};
use crate::loader::BatchSlot;
use crate::outcome::ROUNDS;
use crate::rank::{Rank, RankReply, RunScalars, StepOutcome, beat, seconds};
use crate::rank_memory::{METRIC_BYTES, scalars};
use crate::step_plan::{Keep, StepPlan, Work};
use crate::watchdog::Activity;

/// Shapes of steps whose plans are kept: as many as a recipe alternates between.
const PLANS_MAX: usize = 16;

/// Which step it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepNumbers {
    /// The step, from 0.
    pub step: u64,
    /// The batch that it learns from: of the samples that it sees.
    pub batch: u64,
    /// Updates of all steps before, those that were skipped not counted; none if the device knows
    /// better, since the step before has not said yet how it went.
    pub updates: Option<u64>,
}

/// All that a step needs.
pub(crate) struct Ready {
    plan: Arc<StepPlan>,
    batch: BatchSlot,
    loader_ms: f64,
}

/// A step that the device was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    round: usize,
    abandoned: bool,
    /// Calls on the communication stream before the outcome, by number.
    calls: Range<usize>,
    /// And those that outlive it.
    gathers: Range<usize>,
}

/// Calls on the communication stream that nobody has waited for yet.
pub(super) type Pending = Option<(usize, Range<usize>)>;

impl Rank {
    /// The plan of a step and its batch.
    pub(crate) fn make_ready(
        &mut self,
        ticket: u64,
        batch: u64,
        attempt: usize,
    ) -> Result<Ready, Fault> {
        let shape = self.engine.workload.shape(batch, attempt);
        let plan = self.plan(&shape)?;
        let start = seconds(&*self.clock);
        let batch = self.batch(ticket)?;
        let loader_ms = (seconds(&*self.clock) - start) * 1e3;
        Ok(Ready { plan, batch, loader_ms })
    }

    /// The whole step: every entry of the plan in order. It takes no memory. What a micro-batch
    /// would do is left out once the step is given up; ranks still meet in what is between them.
    pub(crate) fn step(&mut self, ready: &Ready, numbers: StepNumbers) -> Result<Given, Fault> {
        self.round = (self.round + 1) % ROUNDS;
        let (engine, round, ticket) = (&self.engine, self.round, ready.batch.ticket);
        let settings = engine.workload.update(numbers.step);
        let record = |record: usize| ready.batch.record(record);
        let input = StepInput { numbers, settings, round, call: None, record: &record };
        let mut given = Given { round, abandoned: false, calls: 0..0, gathers: 0..0 };
        // Runs below it are begun, with records that come in while an earlier one goes on.
        let mut end = usize::MAX;
        for entry in &ready.plan.entries {
            if let Work::Load(load) = &entry.work {
                if !self.agreement.begins(ticket, load.row as u16) {
                    end = end.min(load.row);
                }
            } else if let Work::Squares = entry.work {
                given.abandoned = end < usize::MAX || !self.agreement.begins(ticket, UPDATE);
                if given.abandoned {
                    return Ok(given);
                }
            }
            if entry.work.row().is_some_and(|row| row >= end) {
                self.crew.skip(engine, entry)?;
            } else if entry.stream == Stream::Communication {
                beat(&self.pulse, Activity::WaitingForRanks);
                let call = Some(given.gathers.end);
                self.crew.issue(engine, entry, &StepInput { call, ..input })?;
                given.gathers.end += 1;
                if entry.work.lasting().is_none() {
                    (given.calls.end, given.gathers.start) = (given.gathers.end, given.gathers.end);
                }
            } else {
                beat(&self.pulse, Activity::Computing);
                self.crew.issue(engine, entry, &input)?;
            }
        }
        Ok(given)
    }

    /// Gives a step to the device. How it went is told in time ([`Self::look`]).
    pub(crate) fn fly(&mut self, ready: Ready, numbers: StepNumbers) -> Result<(), Fault> {
        let given = self.step(&ready, numbers);
        // A batch stays until nobody copies it any more, also one of a step that failed.
        let (round, failed) = (self.round, given.as_ref().err().cloned());
        let nothing = Given { round, abandoned: true, calls: 0..0, gathers: 0..0 };
        self.flying.push_back((ready, given.unwrap_or(nothing)));
        failed.map_or(Ok(()), Err)
    }

    /// Whether a step has said how it went.
    pub(super) fn has_said(&self, given: &Given) -> Result<bool, Fault> {
        let (device, event) = (&self.engine.device, self.engine.memory.outcome_event(given.round));
        Ok(given.abandoned || device.reached(event).map_err(|e| self.engine.fault(e))?)
    }

    /// Waits until a step has said how it went. It is the report that takes memory, not the step.
    pub(crate) fn outcome(&mut self, ready: Ready, given: &Given) -> Result<RankReply, Fault> {
        let Given { round, abandoned, .. } = *given;
        let (engine, cells) = (&self.engine, &self.crew.outcomes);
        let waited = match abandoned {
            true => engine.device.finish(),
            false => engine.device.synchronize(engine.memory.outcome_event(round)),
        };
        waited.map_err(|e| engine.fault(e))?;
        // The outcome comes behind the copies of all records: now the slot is free.
        let Ready { plan, batch, loader_ms } = ready;
        self.hand_back(batch);
        let mut outcome = StepOutcome { abandoned, loader_ms, ..StepOutcome::default() };
        if abandoned {
            self.pending = None;
            return Ok(RankReply::Stepped(Box::new(outcome)));
        }
        let decision = cells.decision(engine, round);
        outcome.norm = decision.norm;
        outcome.skipped = decision.skip != 0;
        outcome.overflow = decision.skip & OVERFLOW != 0;
        outcome.held = decision.skip & HELD != 0;
        outcome.fingerprint = cells.fingerprints(engine, round);
        outcome.runs = self.scalars(&plan, round);
        outcome.reduce_ms = self.reduce_ms(given)?;
        self.pending = Some((round, given.gathers.clone()));
        Ok(RankReply::Stepped(Box::new(outcome)))
    }

    /// Time that the communication stream was busy for a step: until its decision, and with the
    /// gathers of the step before, for which this one has waited.
    fn reduce_ms(&self, given: &Given) -> Result<f64, Fault> {
        let (engine, calls) = (&self.engine, (given.round, given.calls.clone()));
        let mut ms = 0.0;
        for (round, calls) in [calls].into_iter().chain(self.pending.clone()) {
            for call in calls {
                let [from, to] = engine.memory.call_events(round, call);
                let time = engine.device.elapsed(from, to).map_err(|e| engine.fault(e))?;
                ms += time.as_secs_f64() * 1e3;
            }
        }
        Ok(ms)
    }

    fn scalars(&self, plan: &StepPlan, round: usize) -> Vec<RunScalars> {
        let programs = self.engine.workload.programs();
        let one = |keep: &Keep| {
            let count = scalars(&programs[keep.program.0]);
            let words = self.crew.outcomes.row(&self.engine, round, keep.row)[..count].to_vec();
            RunScalars { micro_batch: keep.micro_batch, program: keep.program.0, words }
        };
        plan.keeps().map(one).collect()
    }

    fn plan(&mut self, shape: &Arc<StepShape>) -> Result<Arc<StepPlan>, Fault> {
        if let Some((_, plan)) = self.plans.iter().find(|(s, _)| s == shape) {
            return Ok(plan.clone());
        }
        let memory = &self.engine.memory;
        let plan =
            StepPlan::new(&*self.engine.workload, shape, memory.ranks, memory.rank, memory.zero)
                .map_err(|e| Fault::ours(self.name(), e))?;
        let rows = memory.metrics.bytes / (memory.columns * METRIC_BYTES).max(1);
        let rows = if memory.columns > 0 { rows } else { usize::MAX };
        let counts = [
            ("runs", plan.rows, rows),
            ("marks", plan.marks, memory.marks),
            ("calls", plan.meetings().count(), memory.calls),
        ];
        if let Some((what, has, most)) = counts.into_iter().find(|(_, has, most)| has > most) {
            let what = format!("a step of {has} {what}, planned for {most}");
            return Err(Fault::ours(self.name(), what));
        }
        if self.plans.len() == PLANS_MAX {
            self.plans.remove(0);
        }
        let plan = Arc::new(plan);
        self.plans.push((shape.clone(), plan.clone()));
        Ok(plan)
    }

    /// The next slot of this work; slots of abandoned work go back.
    pub(super) fn batch(&self, ticket: u64) -> Result<BatchSlot, Fault> {
        beat(&self.pulse, Activity::WaitingFor(ActorName::Loader(self.engine.memory.rank)));
        loop {
            let slot = self.data.full.recv_timeout(self.patience).map_err(|e| match e {
                RecvTimeoutError::Timeout => {
                    let seconds = self.patience.as_secs();
                    Fault::world(self.name(), format!("no batch in {seconds} s"))
                }
                RecvTimeoutError::Disconnected => Fault::world(self.name(), "the loader is gone"),
            })?;
            if slot.ticket == ticket {
                return Ok(slot);
            }
            self.hand_back(slot);
        }
    }

    pub(super) fn hand_back(&self, slot: BatchSlot) {
        // A loader that is gone is its own fault, not this rank's.
        let _gone = self.data.free.send(slot);
    }
}
