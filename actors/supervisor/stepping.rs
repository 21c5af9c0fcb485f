//! What follows from a step: the report, the verdict about its update, the way back.

use crate::checkpointer::CheckpointerMessage;
use crate::fault::{ActorName, Fault};
use crate::rank::{RankReply, StepOutcome};
use crate::recovery::{RollBack, Update, Verdict};
use crate::report::{RollBackReport, StepReport};
use crate::resume::FirstState;
use crate::schedule::Work;
use crate::step_report::{StepAt, Times, step_report};
use crate::supervisor::Supervisor;
use crate::telemetry::TelemetryMessage;

impl Supervisor {
    pub(super) fn stepped(&mut self, step: u64, attempt: usize) {
        let outcomes: Vec<StepOutcome> = self
            .replies
            .iter_mut()
            .filter_map(|reply| match reply.take() {
                Some(RankReply::Stepped(outcome)) => Some(*outcome),
                _ => None,
            })
            .collect();
        if outcomes.iter().any(|o| o.abandoned) {
            self.interrupted = true;
            return;
        }
        if outcomes.iter().any(|o| o.overflow) && attempt + 1 < self.workload.attempts() {
            self.agenda.clear();
            self.planned = step + 1;
            self.plan(Work::Step { step, attempt: attempt + 1 });
            let workload = self.workload.clone();
            for work in self.schedule.after(step + 1, workload.evaluations()) {
                self.plan(work);
            }
            return;
        }
        self.done = step + 1;
        let times = Times {
            seconds: self.clock.seconds() - self.work_began,
            checkpoint_ms: self.slots.take_wait_ms(),
        };
        let at = StepAt { step, batch: self.recovery.batch(step), tokens: self.tokens };
        let report = step_report(&*self.workload, at, &outcomes, times);
        self.tokens = report.tokens;
        self.updates += u64::from(!report.skipped);
        self.judge(&report);
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
