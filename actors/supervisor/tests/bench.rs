//! Everybody whom a supervisor tells, played by one partner that answers at once.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::actor::{Actor, Closed, Port};
use crate::checkpointer::{CheckpointerMessage, CheckpointerReply, RunFacts};
use crate::contract::Workload;
use crate::evaluator::EvaluatorMessage;
use crate::fault::{ActorName, Fault};
use crate::loader::LoaderMessage;
use crate::outside::ManualClock;
use crate::rank::{RankMessage, RankReply, StepOutcome};
use crate::recovery::Policy;
use crate::report::EvaluationReport;
use crate::resume::FirstState;
use crate::schedule::Schedule;
use crate::sim::toy::{Tiny, tiny};
use crate::snapshot::{SLOTS, SnapshotLayout, SnapshotSlots};
use crate::supervisor::{Ending, Ports, RunEnd, SavedState, Supervisor, SupervisorMessage};
use crate::telemetry::TelemetryMessage;

pub(super) const RANKS: usize = 2;
pub(super) const STEPS: u64 = 4;

/// Two in a row, once.
pub(super) const POLICY: Policy =
    Policy { bad_updates: 2, rollbacks: 1, skip_data: true, window: 2, loss_z: 0.0, norm_z: 0.0 };

/// What the supervisor tells.
#[derive(Debug)]
pub(super) enum Told {
    Rank(usize, RankMessage),
    Order,
    Evaluator(EvaluatorMessage),
    Checkpointer(CheckpointerMessage),
    Telemetry(TelemetryMessage),
    End(RunEnd),
}

/// What comes of a request to save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Saves {
    Work,
    Wait,
    Fail,
    /// They fail for want of space.
    Full,
}

/// Everybody else, who answers at once and well unless told otherwise.
pub(super) struct Bench {
    pub(super) supervisor: Supervisor,
    pub(super) clock: Arc<ManualClock>,
    pub(super) slots: Arc<SnapshotSlots>,
    pub(super) layout: Arc<SnapshotLayout>,
    told: Receiver<Told>,
    pub(super) waiting: VecDeque<Told>,
    pub(super) saves: Saves,
    /// Whether the evaluator comes to a sum.
    pub(super) sums: bool,
    /// Requests that wait: slot and step.
    pub(super) held: Vec<(usize, u64)>,
    pub(super) overflows: Vec<(u64, usize)>,
    /// Batches of bad updates.
    pub(super) skips: Vec<u64>,
    /// What rank 0 was told, in order.
    pub(super) works: Vec<String>,
    /// By step that rank 0 was told to take: the updates before, if somebody knew.
    pub(super) updates: Vec<Option<u64>>,
    /// By rank: its last step overflowed, or one before it.
    overflowed: [bool; RANKS],
    pub(super) orders: usize,
    pub(super) orders_most: usize,
    pub(super) telemetry: Vec<TelemetryMessage>,
    pub(super) saved: Vec<u64>,
    pub(super) end: Option<RunEnd>,
}

pub(super) fn schedule() -> Schedule {
    Schedule {
        steps: STEPS,
        evaluate_every: 2,
        checkpoint_every: 2,
        memory_every: 0,
        drive_every: 4,
        depth: 1,
    }
}

fn port<M: Send + 'static>(
    told: &Sender<Told>,
    into: impl Fn(M) -> Told + Send + Sync + 'static,
) -> Port<M> {
    let told = told.clone();
    Port::new(move |message| told.send(into(message)).map_err(|_| Closed))
}

fn loader_port(told: &Sender<Told>) -> Port<LoaderMessage> {
    let told = told.clone();
    Port::new(move |message| match message {
        LoaderMessage::Order(_) => told.send(Told::Order).map_err(|_| Closed),
        LoaderMessage::Free(_) => panic!("slots come from ranks"),
    })
}

impl Bench {
    pub(super) fn new(schedule: Schedule) -> Self {
        let options = Tiny { tasks: vec![2, 1], attempts: 3, ..Tiny::default() };
        let workload: Arc<dyn Workload> = Arc::new(tiny(&options));
        let layout = Arc::new(SnapshotLayout::of(&*workload));
        let slots = SnapshotSlots::create(layout.bytes()).unwrap();
        let (tell, told) = unbounded();
        let ports = Ports {
            ranks: (0..RANKS).map(|r| port(&tell, move |m| Told::Rank(r, m))).collect(),
            loaders: (0..RANKS).map(|_| loader_port(&tell)).collect(),
            evaluator: port(&tell, Told::Evaluator),
            checkpointer: port(&tell, Told::Checkpointer),
            telemetry: port(&tell, Told::Telemetry),
            end: port(&tell, Told::End),
        };
        let clock = Arc::new(ManualClock::new());
        let handles: Vec<_> = (0..SLOTS).map(|i| slots.slot(i, &layout)).collect();
        let facts = RunFacts::default();
        let slots_of = (handles, &facts);
        let supervisor =
            Supervisor::new(workload, schedule, POLICY, ports, slots_of, clock.clone());
        Self {
            supervisor,
            clock,
            slots,
            layout,
            told,
            waiting: VecDeque::new(),
            saves: Saves::Work,
            sums: true,
            held: vec![],
            overflows: vec![],
            skips: vec![],
            works: vec![],
            updates: vec![],
            overflowed: [false; RANKS],
            orders: 0,
            orders_most: 0,
            telemetry: vec![],
            saved: vec![],
            end: None,
        }
    }

    /// A run from step 0, told to begin.
    pub(super) fn begun() -> Self {
        let mut bench = Self::new(schedule());
        bench.start(0, None);
        bench
    }

    /// Begins from a state on disk, or one that is only in memory.
    pub(super) fn start(&mut self, step: u64, digest: Option<&str>) {
        let (on_disk, digest) = (digest.is_some(), digest.map(ToString::to_string));
        let state = state(step, digest, on_disk);
        self.tell(SupervisorMessage::Start { state, first: vec![] });
    }

    pub(super) fn tell(&mut self, message: SupervisorMessage) {
        self.try_tell(message).unwrap();
    }

    pub(super) fn try_tell(&mut self, message: SupervisorMessage) -> Result<(), Fault> {
        self.supervisor.apply(message)?;
        self.waiting.extend(self.told.try_iter());
        Ok(())
    }

    pub(super) fn interrupt(&mut self) {
        self.tell(SupervisorMessage::Interrupt);
    }

    /// Answers until the supervisor is silent.
    pub(super) fn play(&mut self) {
        while self.answer() {}
    }

    /// Answers until rank 0 is told something that begins with `work`; leaves that unanswered.
    pub(super) fn play_until(&mut self, work: &str) {
        loop {
            if let Some(Told::Rank(0, message)) = self.waiting.front()
                && name(message).starts_with(work)
            {
                return;
            }
            assert!(self.answer(), "rank 0 is never told {work}: {:?}", self.works);
        }
    }

    /// Takes one message and does what its receiver would do.
    pub(super) fn answer(&mut self) -> bool {
        let Some(told) = self.waiting.pop_front() else { return false };
        match told {
            Told::Rank(rank, message) => {
                if rank == 0 {
                    self.works.push(name(&message));
                    if let RankMessage::Step { updates, .. } = message {
                        self.updates.push(updates);
                    }
                    let ordered =
                        matches!(message, RankMessage::Step { .. } | RankMessage::Evaluate { .. });
                    self.orders -= usize::from(ordered);
                }
                if matches!(message, RankMessage::Step { .. }) {
                    self.tell(SupervisorMessage::Rank(rank, RankReply::Enqueued));
                }
                if let Some(reply) = self.reply_to(rank, &message) {
                    self.tell(SupervisorMessage::Rank(rank, reply));
                }
            }
            Told::Order => {
                self.orders += 1;
                // Both loaders were told.
                self.waiting.pop_front();
                self.orders_most = self.orders_most.max(self.orders);
            }
            Told::Evaluator(EvaluatorMessage::Begin { step, task, .. }) if self.sums => {
                self.tell(SupervisorMessage::Evaluated(evaluation(step, task)));
            }
            Told::Evaluator(_) => {}
            Told::Checkpointer(CheckpointerMessage::Save { slot, step, parent, .. }) => {
                self.works.push(format!("save {step} after {parent:?}"));
                self.held.push((slot, step));
                if self.saves != Saves::Wait {
                    self.release(self.saves == Saves::Work);
                }
            }
            Told::Checkpointer(CheckpointerMessage::Seal { slot, step }) => {
                self.works.push(format!("seal {step}"));
                let digest = format!("digest {step}");
                let reply = CheckpointerReply::Sealed { step, slot, digest, ms: 1 };
                self.tell(SupervisorMessage::Checkpoint(reply));
            }
            Told::Checkpointer(CheckpointerMessage::Rewind { step }) => {
                self.works.push(format!("rewind {step}"));
                let reply = CheckpointerReply::Rewound(state(step, None, false));
                self.tell(SupervisorMessage::Checkpoint(reply));
            }
            Told::Checkpointer(other) => panic!("{other:?}"),
            Told::Telemetry(message) => self.telemetry.push(message),
            Told::End(end) => {
                assert_eq!(self.end.replace(end), None, "it ends twice");
            }
        }
        true
    }

    /// The checkpointer takes what it was told, before anybody else takes anything.
    pub(super) fn tell_checkpointer(&mut self) {
        let of_it = |told: &Told| matches!(told, Told::Checkpointer(_));
        while let Some(told) = self.waiting.iter().position(of_it) {
            let told = self.waiting.remove(told).unwrap();
            self.waiting.push_front(told);
            self.answer();
        }
    }

    /// The checkpointer answers the oldest request.
    pub(super) fn release(&mut self, good: bool) {
        let (slot, step) = self.held.remove(0);
        let reply = if good {
            self.saved.push(step);
            let (digest, path) = (format!("digest {step}"), PathBuf::from("there"));
            CheckpointerReply::Saved { step, slot, digest, path, bytes: 1, ms: 1, removed: vec![] }
        } else {
            let fault = Fault::world(ActorName::Checkpointer, "no space left");
            CheckpointerReply::Failed { step, slot, fault, no_space: self.saves == Saves::Full }
        };
        self.tell(SupervisorMessage::Checkpoint(reply));
    }

    /// A step went so on a rank.
    pub(super) fn went(&mut self, rank: usize, outcome: StepOutcome) {
        self.tell(SupervisorMessage::Rank(rank, RankReply::Enqueued));
        self.tell(SupervisorMessage::Rank(rank, RankReply::Stepped(Box::new(outcome))));
    }

    fn reply_to(&mut self, rank: usize, message: &RankMessage) -> Option<RankReply> {
        Some(match *message {
            RankMessage::Restore { .. } => RankReply::Restored,
            RankMessage::Step { step, attempt, batch, updates, .. } => {
                let mut outcome = outcome();
                outcome.held = updates.is_none() && self.overflowed[rank];
                outcome.overflow = self.overflows.contains(&(step, attempt));
                self.overflowed[rank] = outcome.held || outcome.overflow;
                outcome.skipped = self.overflowed[rank] || self.skips.contains(&batch);
                RankReply::Stepped(Box::new(outcome))
            }
            RankMessage::Evaluate { .. } => RankReply::Evaluated,
            RankMessage::Drive { .. } => RankReply::Drove,
            RankMessage::Snapshot { .. } => RankReply::Snapped { ms: 3.0 },
            RankMessage::Stop => return None,
        })
    }

    pub(super) fn ending(&self) -> (&Ending, u64, Option<&str>) {
        let end = self.end.as_ref().expect("the run is over");
        let digest = end.saved.as_ref().map(|saved| saved.digest.as_str());
        (&end.ending, end.step, digest)
    }

    pub(super) fn notes(&self) -> Vec<&str> {
        let notes = self.telemetry.iter().filter_map(|message| match message {
            TelemetryMessage::Note { what } => Some(what.as_str()),
            _ => None,
        });
        notes.collect()
    }

    pub(super) fn reported(&self) -> Vec<u64> {
        let step = |m: &TelemetryMessage| match m {
            TelemetryMessage::Step(report) => Some(report.step),
            _ => None,
        };
        self.telemetry.iter().filter_map(step).collect()
    }

    pub(super) fn checkpoint_wait_ms(&self) -> Vec<f64> {
        let wait = |m: &TelemetryMessage| match m {
            TelemetryMessage::Step(report) => Some(report.wait_ms.checkpoint),
            _ => None,
        };
        self.telemetry.iter().filter_map(wait).collect()
    }
}

/// As it is found, with nothing known of bad updates.
fn state(step: u64, digest: Option<String>, on_disk: bool) -> FirstState {
    let (recovery, cursor, notes) = (serde_json::Value::Null, serde_json::Value::Null, vec![]);
    let digest_saved = digest.clone().filter(|_| on_disk);
    let saved = digest_saved.map(|digest| SavedState { step, digest });
    FirstState { slot: 0, step, digest, on_disk, saved, recovery, cursor, notes }
}

fn name(message: &RankMessage) -> String {
    match message {
        RankMessage::Restore { slot } => format!("restore {slot}"),
        RankMessage::Step { step, attempt: 0, batch, .. } if step == batch => {
            format!("step {step}")
        }
        RankMessage::Step { step, attempt: 0, batch, .. } => format!("step {step} on {batch}"),
        RankMessage::Step { step, attempt, .. } => format!("step {step} again {attempt}"),
        RankMessage::Evaluate { task, step, .. } => format!("evaluate {task} at {step}"),
        RankMessage::Drive { step } => format!("drive at {step}"),
        RankMessage::Snapshot { .. } => "snapshot".to_string(),
        RankMessage::Stop => "stop".to_string(),
    }
}

pub(super) fn outcome() -> StepOutcome {
    StepOutcome {
        runs: vec![],
        norm: 1.0,
        skipped: false,
        overflow: false,
        held: false,
        abandoned: false,
        fingerprint: vec![],
        loader_ms: 0.0,
        reduce_ms: 0.0,
    }
}

pub(super) fn evaluation(step: u64, task: usize) -> EvaluationReport {
    let (loss, perplexity, bits_per_byte) = (0.0, 1.0, None);
    EvaluationReport {
        step,
        task: format!("task {task}"),
        loss,
        perplexity,
        bits_per_byte,
        targets: 1,
        measures: vec![],
    }
}
