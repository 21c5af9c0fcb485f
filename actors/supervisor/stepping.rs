//! What follows from a step: the report, the verdict about its update, the way back.

use crate::checkpointer::CheckpointerMessage;
use crate::fault::{ActorName, Fault};
use crate::recovery::{RollBack, Update, Verdict};
use crate::report::{RollBackReport, StepReport};
use crate::resume::FirstState;
use crate::schedule::Work;
use crate::step_report::{StepAt, Times, step_report};
use crate::supervisor::Supervisor;
use crate::supervisor::given::Done;
use crate::telemetry::TelemetryMessage;

impl Supervisor {
    /// All ranks have said how a step went.
    pub(super) fn stepped(&mut self, done: &Done) {
        let Done { step, attempt, void, ref outcomes } = *done;
        let now = self.clock.seconds();
        let began = std::mem::replace(&mut self.work_began, now);
        if outcomes.iter().any(|o| o.abandoned) {
            self.interrupted = true;
            return;
        }
        let held = outcomes.iter().any(|o| o.held);
        let overflow = outcomes.iter().any(|o| o.overflow);
        if void {
            return;
        }
        if held || (overflow && attempt + 1 < self.workload.attempts()) {
            // What was held has not been tried.
            return self.again(step, attempt + usize::from(!held));
        }
        self.done = step + 1;
        let times = Times { seconds: now - began, checkpoint_ms: self.slots.take_wait_ms() };
        let at = StepAt { step, batch: self.recovery.batch(step), tokens: self.tokens };
        let report = step_report(&*self.workload, at, outcomes, times);
        self.tokens = report.tokens;
        self.updates += u64::from(!report.skipped);
        self.judge(&report);
    }

    /// Has a step done again, and what follows it.
    fn again(&mut self, step: u64, attempt: usize) {
        self.given.void();
        self.agenda.clear();
        self.planned = step + 1;
        self.plan(Work::Step { step, attempt });
        let workload = self.workload.clone();
        for work in self.schedule.after(step + 1, workload.evaluations()) {
            self.plan(work);
        }
    }

    /// Reports a step and decides what its update means.
    fn judge(&mut self, report: &StepReport) {
        let StepReport { step, loss, grad_norm: norm, skipped, .. } = *report;
        let update = Update { step: step - 1, loss, norm, skipped };
        self.ports.telemetry.tell(TelemetryMessage::Step(report.clone()));
        if report.targets == Some(0) && norm.is_finite() {
            // It says nothing about the model, good or bad.
            return;
        }
        match self.recovery.judge(&self.policy, &self.schedule, &update) {
            Verdict::Good => {}
            Verdict::Bad(what) => self.ports.telemetry.tell(TelemetryMessage::Bad { what }),
            Verdict::RollBack(back) => {
                self.ports.telemetry.tell(TelemetryMessage::Bad { what: back.reason.clone() });
                self.given.void();
                self.agenda.clear();
                self.planned = self.done;
                self.ports.checkpointer.tell(CheckpointerMessage::Rewind { step: back.to });
                self.back = Some(back);
            }
        }
    }

    /// The earlier state is in a slot: goes on from there, or saves it and stops.
    pub(super) fn rewound(&mut self, state: FirstState) -> Result<(), Fault> {
        let nobody = || Fault::ours(ActorName::Supervisor, "nobody asked for an earlier state");
        let back = self.back.take().ok_or_else(nobody)?;
        let telemetry = &self.ports.telemetry;
        let skips = if back.goes_on { back.skips() } else { self.recovery.skips() };
        telemetry.tell(TelemetryMessage::RewindLog { step: state.step, skips: skips.clone() });
        for note in &state.notes {
            telemetry.tell(TelemetryMessage::Note { what: note.clone() });
        }
        if back.goes_on {
            telemetry.tell(TelemetryMessage::RollBack(report_of(&back, state.step)));
        } else {
            let (to, reason, spent) = (state.step, &back.reason, back.number() - 1);
            let what = format!(
                "{reason}; {spent} roll-backs are spent, so the run stops, saved at step {to}: \
                 see recovery.rollbacks, or change what it learns from or how fast"
            );
            self.stopping = Some(Fault::decided(ActorName::Supervisor, what));
        }
        self.start(state, Vec::new())?;
        if back.goes_on {
            self.recovery.adopt(&back);
        }
        Ok(())
    }
}

fn report_of(back: &RollBack, loaded: u64) -> RollBackReport {
    let (first_batch, batches) = back.passed_over;
    RollBackReport {
        step: back.to,
        at: back.at,
        loaded,
        number: u64::from(back.number()),
        reason: back.reason.clone(),
        first_batch,
        batches,
    }
}
