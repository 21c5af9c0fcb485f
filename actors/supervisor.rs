//! The supervisor: the run as a state machine. It orders work, gathers replies and decides what is
//! next. It never waits and never computes; it is told, and it tells.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::actor::{Actor, Flow, Port};
use crate::checkpointer::{CheckpointerMessage, CheckpointerReply, RunFacts};
use crate::contract::Workload;
use crate::evaluator::EvaluatorMessage;
use crate::fault::{ActorName, Fault};
use crate::loader::{LoaderMessage, Order};
use crate::outside::Clock;
use crate::rank::{RankMessage, RankReply};
use crate::recovery::{Policy, Recovery, RollBack};
use crate::report::EvaluationReport;
use crate::resume::FirstState;
use crate::schedule::{Schedule, Work, ahead};
use crate::snapshot::Slot;
use crate::telemetry::TelemetryMessage;
use crate::telemetry::status::RunState;

mod clock;
mod given;
mod saving;
mod slot_table;
mod space;
mod stepping;
#[cfg(test)]
mod tests;

use clock::ClockHandle;
use given::Given;
use saving::Saving;
use slot_table::SlotTable;
use space::SpaceWait;

/// The supervisor's protocol.
#[derive(Debug)]
pub enum SupervisorMessage {
    /// All actors stand.
    Start {
        /// Where the first state is.
        state: FirstState,
        /// What to do before the first step.
        first: Vec<Work>,
    },
    /// A rank has done what it was told.
    Rank(usize, RankReply),
    /// A held-out task is summed.
    Evaluated(EvaluationReport),
    /// A snapshot is on disk, or is not.
    Checkpoint(CheckpointerReply),
    /// Somebody failed beyond its own restart.
    Fault(Fault),
    /// Save and end (SIGINT, SIGTERM).
    Interrupt,
    /// Save, and go on (SIGUSR1).
    Save,
    /// Some seconds have passed.
    Tick,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// All steps are done and saved.
    Finished,
    /// Interrupted, and saved.
    Interrupted,
    /// A fault that only a new engine can survive, or none.
    Failed(Fault),
}

/// The last word of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEnd {
    /// How.
    pub ending: Ending,
    /// Steps done.
    pub step: u64,
    /// What the disk holds of them.
    pub saved: Option<SavedState>,
    /// The batch that would come next.
    pub batch: u64,
}

impl RunEnd {
    /// A run that ended before it could say where it stood.
    pub fn failed(fault: Fault) -> Self {
        Self { ending: Ending::Failed(fault), step: 0, saved: None, batch: 0 }
    }
}

/// A state that a good checkpoint holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedState {
    /// Steps done.
    pub step: u64,
    /// Digest of the state.
    pub digest: String,
}

/// Everybody whom the supervisor tells.
#[derive(Debug, Clone)]
pub struct Ports {
    /// By rank.
    pub ranks: Vec<Port<RankMessage>>,
    /// By rank.
    pub loaders: Vec<Port<LoaderMessage>>,
    /// One.
    pub evaluator: Port<EvaluatorMessage>,
    /// One.
    pub checkpointer: Port<CheckpointerMessage>,
    /// One.
    pub telemetry: Port<TelemetryMessage>,
    /// Whoever started the run.
    pub end: Port<RunEnd>,
}

/// The actor.
#[derive(Debug)]
pub struct Supervisor {
    workload: Arc<dyn Workload>,
    schedule: Schedule,
    policy: Policy,
    ports: Ports,
    slots: SlotTable,
    clock: ClockHandle,
    /// Steps done.
    done: u64,
    /// Steps whose work is on the agenda or done.
    planned: u64,
    agenda: VecDeque<(u64, Work)>,
    tickets: u64,
    /// Steps that go on.
    given: Given,
    /// Other work that goes on.
    current: Option<Work>,
    /// By rank: whether it has done that, or has taken the state that it was told to.
    replied: Vec<bool>,
    report: Option<EvaluationReport>,
    /// Ranks read their state from it.
    filling: Option<usize>,
    /// Ranks copy their state out.
    saving: Option<Saving>,
    /// The step that is on disk or on its way there.
    saved_step: Option<u64>,
    /// The checkpoint that the next one follows.
    on_disk: Option<SavedState>,
    /// What decisions about bad updates depend on.
    recovery: Recovery,
    /// Tokens of the steps that are done.
    tokens: u64,
    /// Their updates, those that were skipped not counted.
    updates: u64,
    /// On the way back to an earlier state, until ranks are told to take it.
    back: Option<RollBack>,
    /// The last save has found no space, and is tried again.
    space: Option<SpaceWait>,
    /// Saves, and then ends for this reason.
    stopping: Option<Fault>,
    interrupted: bool,
    /// Somebody wants a checkpoint before the next step.
    asked_to_save: bool,
    ended: bool,
    shown: Option<RunState>,
    work_began: f64,
}

impl Supervisor {
    /// A supervisor that waits for [`SupervisorMessage::Start`]. `facts` stand beside each state.
    pub fn new(
        workload: Arc<dyn Workload>,
        schedule: Schedule,
        policy: Policy,
        ports: Ports,
        (slots, facts): (Vec<Slot>, &RunFacts),
        clock: Arc<dyn Clock>,
    ) -> Self {
        let ranks = ports.ranks.len();
        Self {
            workload,
            schedule,
            policy,
            ports,
            slots: SlotTable::new(slots, facts.identity.clone()),
            clock: ClockHandle::new(clock),
            done: 0,
            planned: 0,
            agenda: VecDeque::new(),
            tickets: 0,
            given: Given::new(ranks, schedule.depth),
            current: None,
            replied: vec![false; ranks],
            report: None,
            filling: None,
            saving: None,
            saved_step: None,
            on_disk: None,
            recovery: Recovery::default(),
            tokens: 0,
            updates: 0,
            back: None,
            space: None,
            stopping: None,
            interrupted: false,
            asked_to_save: false,
            ended: false,
            shown: None,
            work_began: 0.0,
        }
    }

    /// Goes on from a state: at the start of the engine, or back to an earlier one.
    fn start(&mut self, state: FirstState, first: Vec<Work>) -> Result<(), Fault> {
        let FirstState { slot, step, on_disk, saved, recovery, cursor, .. } = state;
        let recovery = Recovery::from_value(&recovery);
        self.recovery = recovery.map_err(|e| Fault::ours(ActorName::Supervisor, e))?;
        let nominal = || self.workload.samples_before(step) * self.workload.tokens_per_sample();
        self.tokens = cursor["tokens"].as_u64().unwrap_or_else(nominal);
        self.updates = cursor["updates"].as_u64().unwrap_or(step);
        self.done = step;
        self.planned = step;
        self.saved_step = on_disk.then_some(step);
        self.on_disk = saved;
        self.slots.lend(slot);
        self.filling = Some(slot);
        for work in first {
            self.plan(work);
        }
        self.tell_ranks(&RankMessage::Restore { slot });
        Ok(())
    }

    fn tell_ranks(&mut self, message: &RankMessage) {
        self.replied.fill(false);
        for port in &self.ports.ranks {
            port.tell(message.clone());
        }
    }

    /// Puts work on the agenda, and gives the orders that go with it, a bounded way ahead.
    fn refill(&mut self) {
        let end = self.schedule.steps.min(self.done + ahead(self.schedule.depth));
        while self.planned < end {
            self.plan(Work::Step { step: self.planned, attempt: 0 });
            self.planned += 1;
            let workload = self.workload.clone();
            for work in self.schedule.after(self.planned, workload.evaluations()) {
                self.plan(work);
            }
        }
    }

    fn plan(&mut self, work: Work) {
        self.tickets += 1;
        let ticket = self.tickets;
        let order = match work {
            Work::Step { step, attempt } => {
                let batch = self.recovery.batch(step);
                Some(Order::Step { ticket, batch, attempt })
            }
            Work::Evaluate { task, .. } => Some(Order::Evaluate { ticket, task }),
            Work::Drive { .. } | Work::Snapshot { .. } | Work::Save { .. } => None,
        };
        for port in order.iter().flat_map(|_| &self.ports.loaders) {
            port.tell(LoaderMessage::Order(order.expect("just checked")));
        }
        self.agenda.push_back((ticket, work));
    }

    /// Takes the next piece of work, or ends the run; nothing while what goes on must end first.
    fn advance(&mut self) {
        let waits = self.space.as_ref().is_some_and(SpaceWait::waits);
        let busy = self.current.is_some() || self.filling.is_some();
        if self.ended || self.back.is_some() || waits || busy {
            return;
        }
        if self.interrupted || self.stopping.is_some() {
            self.agenda.clear();
            self.planned = self.done;
        } else {
            self.refill();
        }
        if !self.given.is_empty() && !self.may_follow() {
            return;
        }
        if self.agenda.is_empty() && self.saving.is_some() {
            return;
        }
        if self.agenda.is_empty() && self.is_to_be_saved() {
            self.agenda.push_back((0, Work::Save { step: self.done }));
        }
        self.save_if_asked();
        let Some(&(ticket, work)) = self.agenda.front() else {
            self.end_when_saved();
            return;
        };
        if matches!(work, Work::Snapshot { .. } | Work::Save { .. })
            && self.recovery.bad() > 0
            && !self.is_ending()
        {
            // What may have to be given up does not take the place of what is good.
            self.agenda.pop_front();
            return self.advance();
        }
        let message = match work {
            Work::Step { step, attempt } => {
                let batch = self.recovery.batch(step);
                // What the step before does, its devices know.
                let updates = self.given.is_empty().then_some(self.updates);
                RankMessage::Step { ticket, step, batch, updates, attempt }
            }
            Work::Evaluate { task, step } => {
                self.report = None;
                let parts = self.workload.evaluations()[task].parts;
                self.ports.evaluator.tell(EvaluatorMessage::Begin { step, task, parts });
                RankMessage::Evaluate { ticket, task, step }
            }
            Work::Drive { step } => RankMessage::Drive { step },
            Work::Save { step } => {
                if self.save(step) {
                    self.agenda.pop_front();
                    return self.advance();
                }
                return;
            }
            Work::Snapshot { step } => {
                // The run does not wait for what stays in memory: an older state will do.
                self.snapshot(step);
                self.agenda.pop_front();
                return self.advance();
            }
        };
        self.agenda.pop_front();
        self.give(work, &message);
    }

    /// Whether the run ends with a state that is not on disk. A state of step 0 is made again from
    /// the seed; one that came from memory may never have been written.
    fn is_to_be_saved(&self) -> bool {
        let ends_early = self.interrupted || self.stopping.is_some();
        self.saved_step != Some(self.done) && (ends_early || self.done > 0)
    }

    /// Tells what the run is doing, when that changes.
    fn show(&mut self, state: RunState) {
        if self.shown.replace(state) != Some(state) {
            self.ports.telemetry.tell(TelemetryMessage::State(state));
        }
    }

    fn reply(&mut self, rank: usize, reply: RankReply) -> Result<(), Fault> {
        if let RankReply::Snapped { ms } = reply {
            return self.snapped(rank, ms);
        }
        let is_known = match &reply {
            RankReply::Enqueued => self.given.enqueued(rank),
            RankReply::Stepped(_) => self.given.awaits(rank),
            other => self.is_answer(other) && !self.replied[rank],
        };
        if !is_known {
            let what = format!("rank {rank} replied {reply:?} during {:?}", self.current);
            return Err(Fault::ours(ActorName::Supervisor, what));
        }
        match reply {
            RankReply::Enqueued => {}
            RankReply::Stepped(outcome) => {
                self.given.told(rank, *outcome);
                while let Some(done) = self.given.take_done() {
                    self.stepped(&done);
                }
            }
            _ => {
                self.replied[rank] = true;
                return self.complete();
            }
        }
        self.advance();
        Ok(())
    }

    /// Whether it is what ranks were told last, steps apart.
    fn is_answer(&self, reply: &RankReply) -> bool {
        match self.current {
            None => matches!(reply, RankReply::Restored) && self.filling.is_some(),
            Some(Work::Evaluate { .. }) => matches!(reply, RankReply::Evaluated),
            Some(Work::Drive { .. }) => matches!(reply, RankReply::Drove),
            Some(Work::Step { .. } | Work::Snapshot { .. } | Work::Save { .. }) => false,
        }
    }

    /// A sum for which nobody waits any more comes after an interrupt.
    fn evaluated(&mut self, report: EvaluationReport) -> Result<(), Fault> {
        match self.current {
            Some(Work::Evaluate { step, .. }) if step == report.step => {
                self.report = Some(report);
                self.complete()
            }
            _ => Ok(()),
        }
    }

    /// Ends the current work if everybody has replied.
    fn complete(&mut self) -> Result<(), Fault> {
        if self.replied.contains(&false) {
            return Ok(());
        }
        match self.current {
            // The restore.
            None => {
                let slot = self.filling.take().expect("a restore reads a slot");
                self.slots.free(slot);
            }
            Some(Work::Evaluate { .. }) => match self.report.take() {
                Some(report) => {
                    if report.targets == 0 {
                        let what = format!("{}: no targets, so there is no loss", report.task);
                        self.ports.telemetry.tell(TelemetryMessage::Note { what });
                    }
                    self.ports.telemetry.tell(TelemetryMessage::Evaluation(report));
                }
                None if self.interrupted => {
                    self.ports.evaluator.tell(EvaluatorMessage::Abandon);
                }
                None => return Ok(()),
            },
            Some(_) => {}
        }
        self.current = None;
        self.replied.fill(false);
        self.advance();
        Ok(())
    }

    fn fail(&mut self, fault: Fault) {
        self.end(Ending::Failed(fault));
    }

    /// The last word; whatever comes after it changes nothing.
    fn end(&mut self, ending: Ending) {
        self.ended = true;
        let failed = matches!(ending, Ending::Failed(_));
        self.show(if failed { RunState::Failed } else { RunState::Finished });
        let (saved, batch) = (self.on_disk.clone(), self.recovery.batch(self.done));
        let end = RunEnd { ending, step: self.done, saved, batch };
        self.ports.end.tell(end);
    }
}

impl Actor for Supervisor {
    type Message = SupervisorMessage;

    fn name(&self) -> ActorName {
        ActorName::Supervisor
    }

    fn apply(&mut self, message: SupervisorMessage) -> Result<Flow, Fault> {
        if self.ended {
            return Ok(Flow::Continue);
        }
        match message {
            SupervisorMessage::Start { state, first } => self.start(state, first)?,
            SupervisorMessage::Rank(rank, reply) => self.reply(rank, reply)?,
            SupervisorMessage::Evaluated(report) => self.evaluated(report)?,
            SupervisorMessage::Checkpoint(reply) => self.checkpointed(reply)?,
            SupervisorMessage::Fault(fault) => self.fail(fault),
            SupervisorMessage::Interrupt => {
                self.interrupted = true;
                self.wait_no_longer();
                // Ranks may have given up a task before this came: then no report will follow.
                self.complete()?;
            }
            SupervisorMessage::Save => self.asked_to_save = true,
            SupervisorMessage::Tick => self.tick(),
        }
        Ok(Flow::Continue)
    }
}
