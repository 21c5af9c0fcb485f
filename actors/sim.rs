//! A seeded simulation of the whole control plane on one thread: the real supervisor, loaders,
//! evaluator, checkpointer and telemetry over a faulty disk, with models of ranks.
//!
//! A [`World`] is what outlives a process: disk, snapshot memory, what is known of the run. A
//! [`Life`] is one process: actors and mailboxes with the bounds of `topology.rs`. In every turn a
//! seeded scheduler picks one actor that has something to do, and lets it take one message; each
//! mailbox is first in, first out. Lives end by themselves, by an interrupt, or are killed: the
//! process alone, the machine with what was not synced, in the middle of a write. The next life
//! starts through `resume::first_state`, perhaps on another number of ranks.
//!
//! To replay a seed that failed, set `OCTET_SIM_SEED` to it:
//! `OCTET_SIM_SEED=17 cargo test --release -p octet-actors --lib sim::`. The same seed takes the
//! same turns, so the trace that is printed with a failure is the failure's own. To look for more,
//! set `OCTET_SIM_SEEDS` to a number of seeds.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use octet_kernels::collectives::LaneTree;

use crate::actor::{Actor, Flow, Port};
use crate::checkpoint::{Store, StoreSettings};
use crate::checkpointer::{Checkpointer, CheckpointerMessage, RunFacts};
use crate::contract::Workload;
use crate::evaluator::{Evaluator, EvaluatorMessage, TaskInfo};
use crate::loader::{self, BatchSlot, Loader, LoaderMessage, SlotShape, orders_max};
use crate::outcome::DEPTH_MAX;
use crate::outside::faulty::{FaultyDisk, Moment, Trouble};
use crate::outside::{Clock, Disk, ManualClock};
use crate::recovery::{Policy, Recovery};
use crate::resume::{FirstState, first_state};
use crate::schedule::Schedule;
use crate::snapshot::{Slot, SnapshotLayout, SnapshotSlots};
use crate::supervisor::{Ports, RunEnd, Supervisor, SupervisorMessage};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::resources::{Floors, Resources};
use crate::telemetry::status::Status;
use crate::telemetry::{Telemetry, TelemetryMessage, TelemetrySetup};
use crate::testing::Toy;

pub(crate) mod ranks;
#[cfg(test)]
mod tests;
pub(crate) mod toy;

use ranks::{Ends, History, ModelRank, Table};
use toy::{Random, Tiny, tiny};

/// The log of the simulated run.
pub(crate) const LOG: &str = "/run/log.jsonl";
const SUMMARY: &str = "/run/summary.json";
const CHECKPOINTS: &str = "/run/checkpoints";

/// What a run does about bad updates; `ranks` makes some.
const POLICY: Policy =
    Policy { bad_updates: 2, rollbacks: 3, skip_data: true, window: 3, loss_z: 1e3, norm_z: 0.0 };

/// Turns after which a life has gone astray: a calm one takes a tenth.
const TURNS_MAX: u64 = 20_000;

/// What outlives a process.
pub(crate) struct World {
    pub(crate) workload: Arc<Toy>,
    pub(crate) schedule: Schedule,
    pub(crate) disk: FaultyDisk,
    pub(crate) layout: Arc<SnapshotLayout>,
    pub(crate) slots: Arc<SnapshotSlots>,
    pub(crate) history: History,
    pub(crate) trace: Trace,
}

/// The last turns, for whoever must find out what went wrong.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// Whether to keep them; it takes time.
    pub(crate) on: bool,
    pub(crate) lines: VecDeque<String>,
}

impl Trace {
    const LINES: usize = 120;

    fn add(&mut self, line: impl FnOnce() -> String) {
        if self.on {
            if self.lines.len() == Self::LINES {
                self.lines.pop_front();
            }
            self.lines.push_back(line());
        }
    }
}

impl World {
    /// An empty disk and empty slots.
    pub(crate) fn new(options: &Tiny, schedule: Schedule) -> Self {
        let workload = Arc::new(tiny(options));
        let layout = Arc::new(SnapshotLayout::of(&*workload));
        let disk = FaultyDisk::new();
        disk.create_folders(Path::new("/run")).expect("an empty disk");
        disk.sync_folder(Path::new("/")).expect("an empty disk");
        let slots = SnapshotSlots::create(layout.bytes()).expect("memory");
        let (history, trace) = (History::new(), Trace::default());
        Self { workload, schedule, disk, layout, slots, history, trace }
    }

    pub(crate) fn store(&self) -> Store {
        // One writer at a time, so that a seed always means the same operations.
        let settings = StoreSettings { keep_last: 2, threads: 1, ..StoreSettings::default() };
        let store = Store::new(Arc::new(self.disk.clone()), CHECKPOINTS, settings);
        store.with_log(PathBuf::from(LOG))
    }

    /// Snapshot memory is lost with the machine.
    pub(crate) fn lose_memory(&mut self) {
        self.take_slots(self.slots.count());
    }

    /// Slots for the lives to come: so many, with nothing in them.
    pub(crate) fn take_slots(&mut self, count: usize) {
        self.slots = SnapshotSlots::create_some(self.layout.bytes(), count).expect("memory");
    }

    fn telemetry(&self, clock: &Arc<ManualClock>) -> Telemetry {
        let setup = TelemetrySetup {
            log: LOG.into(),
            summary: SUMMARY.into(),
            fingerprints: "/run/fingerprints.jsonl".into(),
            recorded: Box::new(|step| step.is_multiple_of(3)),
            floors: Floors { available_bytes: 0, free_disk_bytes: 0 },
            probe: Box::new(|| Resources {
                resident_bytes: None,
                available_bytes: None,
                free_disk_bytes: None,
            }),
            metrics: Metrics::new(),
            status: Arc::new(Status::new(clock.monotonic(), Duration::from_secs(60))),
            observer: Box::new(|_| {}),
            clock: clock.clone(),
            disk: Arc::new(self.disk.clone()),
        };
        Telemetry::start(setup).expect("no trouble is planned before the start")
    }
}

/// A mailbox that never takes more than its bound.
fn mailbox<M: Send + 'static>(name: &'static str, bound: usize) -> (Port<M>, Receiver<M>) {
    let (sender, receiver) = bounded(bound);
    let port = Port::new(move |message| {
        let sent = sender.try_send(message);
        assert!(sent.is_ok(), "more than {bound} messages for the {name}");
        Ok(())
    });
    (port, receiver)
}

/// What a life is to suffer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fate {
    /// The process ends at this turn.
    pub(crate) killed_at: Option<u64>,
    /// Ranks give up at this turn, and the supervisor hears so many turns later.
    pub(crate) interrupted_at: Option<(u64, u64)>,
    /// The disk, after so many more operations.
    pub(crate) disk: Option<(u64, Trouble)>,
}

/// How a life ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Death {
    /// The supervisor has said so.
    Ended(RunEnd),
    /// By fate.
    Killed,
}

/// Who can have a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Supervisor,
    Orders(usize),
    FreeSlots(usize),
    Rank(usize),
    Evaluator,
    Checkpointer,
    Telemetry,
}

/// A loader and what it is told.
struct LoaderSeat {
    loader: Loader,
    orders: Receiver<LoaderMessage>,
    free: Receiver<BatchSlot>,
}

/// One process.
pub(crate) struct Life<'w> {
    world: &'w mut World,
    random: Random,
    clock: Arc<ManualClock>,
    supervisor: Supervisor,
    inbox: Receiver<SupervisorMessage>,
    to_supervisor: Port<SupervisorMessage>,
    loaders: Vec<LoaderSeat>,
    ranks: Vec<ModelRank>,
    table: Table,
    evaluator: (Evaluator, Receiver<EvaluatorMessage>),
    checkpointer: (Checkpointer, Receiver<CheckpointerMessage>),
    telemetry: (Telemetry, Receiver<TelemetryMessage>),
    to_telemetry: Port<TelemetryMessage>,
    end: Receiver<RunEnd>,
    abandon: Arc<AtomicBool>,
    fate: Fate,
    turn: u64,
    /// What the start had to say.
    pub(crate) notes: Vec<String>,
}

impl<'w> Life<'w> {
    /// A process on `ranks` ranks: the same start for a new run and for one that goes on.
    pub(crate) fn start(world: &'w mut World, ranks: usize, fate: Fate, random: Random) -> Self {
        let clock = Arc::new(ManualClock::new());
        let (workload, store) = (world.workload.clone(), world.store());
        let facts = RunFacts::default();
        let (slots, layout) = (world.slots.clone(), world.layout.clone());
        let state = begin(world, &store, &facts);
        let notes = state.notes.clone();
        let (to_supervisor, inbox) = mailbox("supervisor", (2 * DEPTH_MAX + 3) * ranks + 16);
        let (to_evaluator, for_evaluator) = mailbox("evaluator", 2 + parts_most(&workload));
        let (to_checkpointer, for_checkpointer) = mailbox("checkpointer", 3);
        let (to_telemetry, for_telemetry) = mailbox("telemetry", 4096);
        let (end_port, end) = mailbox("starter", 1);
        let abandon = Arc::new(AtomicBool::new(false));
        let handles = slots.all(&layout);
        let mut ports = Ports {
            ranks: Vec::new(),
            loaders: Vec::new(),
            evaluator: to_evaluator.clone(),
            checkpointer: to_checkpointer,
            telemetry: to_telemetry.clone(),
            end: end_port,
        };
        let (mut models, mut loaders, depth) = (Vec::new(), Vec::new(), world.schedule.depth);
        let tree = LaneTree::new(workload.batch().lanes, ranks).expect("ranks fit");
        for rank in 0..ranks {
            let told = (&to_supervisor, &to_evaluator, &abandon);
            let (seat, model) = seat(&workload, (&tree, rank), (&handles, depth), told, &mut ports);
            loaders.push(seat);
            models.push(model);
        }
        let evaluator = evaluator(&workload, &to_supervisor);
        let replies = to_supervisor.map(SupervisorMessage::Checkpoint);
        let (own, trained) = (facts.clone(), workload.clone());
        let checkpointer =
            Checkpointer::new(store, slots, layout, clock.clone(), own, trained, replies);
        let supervisor = Supervisor::new(
            workload,
            world.schedule,
            POLICY,
            ports,
            (handles, &facts),
            clock.clone(),
        );
        let telemetry = world.telemetry(&clock);
        let step = state.step;
        let skips = Recovery::from_value(&state.recovery).expect("it can be read").skips().clone();
        to_telemetry.tell(TelemetryMessage::RewindLog { step, skips });
        to_supervisor.tell(SupervisorMessage::Start { state, first: vec![] });
        world.trace.add(|| format!("a life on {ranks} ranks from step {step}: {fate:?}"));
        Self {
            world,
            random,
            clock,
            supervisor,
            inbox,
            to_supervisor,
            loaders,
            ranks: models,
            table: Table::new(ranks),
            evaluator: (evaluator, for_evaluator),
            checkpointer: (checkpointer, for_checkpointer),
            telemetry: (telemetry, for_telemetry),
            to_telemetry,
            end,
            abandon,
            fate,
            turn: 0,
            notes,
        }
    }

    /// Turns until the end. Panics if nobody has anything to do before it.
    pub(crate) fn live(&mut self) -> Death {
        // The rewind comes first, on a healthy disk.
        self.take(Who::Telemetry);
        if let Some((after, trouble)) = self.fate.disk {
            self.world.disk.plan(Moment::Operation(self.world.disk.operations() + after), trouble);
        }
        let favour: Vec<u64> = (0..16).map(|_| 1 + self.random.below(6)).collect();
        loop {
            if let Ok(end) = self.end.try_recv() {
                return self.finish(end);
            }
            self.suffer();
            if self.fate.killed_at == Some(self.turn) || self.world.disk.crashed() {
                return Death::Killed;
            }
            let mut ready = self.ready();
            if ready.is_empty() && self.supervisor.waits_for_space() {
                self.clock.advance(Duration::from_secs(5));
                self.to_supervisor.tell(SupervisorMessage::Tick);
                ready = self.ready();
            }
            if ready.is_empty() && self.fate.interrupted_at.is_some() {
                // Ranks have given up, and the supervisor is about to hear why.
                self.turn += 1;
                continue;
            }
            assert!(!ready.is_empty(), "nobody has anything to do, and the run is not over");
            let weight = |i: usize| favour[i % favour.len()];
            let mut ticket = self.random.below((0..ready.len()).map(weight).sum());
            let mut chosen = 0;
            while ticket >= weight(chosen) {
                ticket -= weight(chosen);
                chosen += 1;
            }
            self.clock.advance(Duration::from_micros(self.random.below(5000)));
            self.take(ready[chosen]);
            self.turn += 1;
            assert!(self.turn < TURNS_MAX, "the run does not end");
        }
    }

    fn suffer(&mut self) {
        if let Some((at, later)) = self.fate.interrupted_at {
            if self.turn == at {
                self.abandon.store(true, Ordering::Relaxed);
            }
            if self.turn == at + later {
                self.to_supervisor.tell(SupervisorMessage::Interrupt);
                self.fate.interrupted_at = None;
            }
        }
        if self.random.once_in(40) {
            self.to_telemetry.tell(TelemetryMessage::Tick);
        }
    }

    fn ready(&self) -> Vec<Who> {
        let mut ready = Vec::new();
        let mut add = |who, is_ready: bool| ready.extend(is_ready.then_some(who));
        add(Who::Supervisor, !self.inbox.is_empty());
        add(Who::Evaluator, !self.evaluator.1.is_empty());
        add(Who::Checkpointer, !self.checkpointer.1.is_empty());
        add(Who::Telemetry, !self.telemetry.1.is_empty());
        for (rank, (seat, model)) in self.loaders.iter().zip(&self.ranks).enumerate() {
            add(Who::Orders(rank), !seat.orders.is_empty());
            add(Who::FreeSlots(rank), !seat.free.is_empty());
            add(Who::Rank(rank), model.is_ready(&self.table));
        }
        ready
    }

    /// One turn.
    fn take(&mut self, who: Who) {
        let trace = &mut self.world.trace;
        let flow = match who {
            Who::Supervisor => feed(&mut self.supervisor, &self.inbox, trace),
            Who::Evaluator => feed(&mut self.evaluator.0, &self.evaluator.1, trace),
            Who::Checkpointer => feed(&mut self.checkpointer.0, &self.checkpointer.1, trace),
            Who::Telemetry => feed(&mut self.telemetry.0, &self.telemetry.1, trace),
            Who::Orders(rank) => {
                let seat = &mut self.loaders[rank];
                feed(&mut seat.loader, &seat.orders, trace)
            }
            Who::FreeSlots(rank) => {
                let seat = &mut self.loaders[rank];
                let slot = seat.free.try_recv().expect("it is ready");
                seat.loader.apply(LoaderMessage::Free(slot)).expect("a loader has no troubles")
            }
            Who::Rank(rank) => {
                trace.add(|| format!("rank {rank}"));
                self.ranks[rank].act(&mut self.table, &mut self.world.history);
                Flow::Continue
            }
        };
        let over = self.world.disk.crashed();
        assert!(flow == Flow::Continue || over, "{who:?} leaves");
    }

    /// As the topology does it: telemetry takes what there is, then the summary.
    fn finish(&mut self, end: RunEnd) -> Death {
        while !self.telemetry.1.is_empty() {
            self.take(Who::Telemetry);
        }
        let told = Port::new(|_| Ok(()));
        let finish = TelemetryMessage::Finish { saved: end.saved.clone(), told };
        // A disk that is full, or stops, at this very moment costs the summary.
        let refused = self.telemetry.0.apply(finish).is_err();
        self.world.trace.add(|| format!("{end:?}, summary refused: {refused}"));
        if self.world.disk.crashed() { Death::Killed } else { Death::Ended(end) }
    }
}

/// A rank and its loader, whose mailboxes are added to `ports`.
fn seat(
    workload: &Arc<Toy>,
    (tree, rank): (&LaneTree, usize),
    (handles, depth): (&[Slot], usize),
    told: (&Port<SupervisorMessage>, &Port<EvaluatorMessage>, &Arc<AtomicBool>),
    ports: &mut Ports,
) -> (LoaderSeat, ModelRank) {
    let (to_supervisor, to_evaluator, abandon) = told;
    let (to_rank, inbox) = mailbox("rank", 4);
    let (to_loader, orders) = mailbox("loader", orders_max(workload.evaluations.len()));
    ports.ranks.push(to_rank);
    ports.loaders.push(to_loader);
    let (full_port, full) = mailbox("ring of full slots", loader::SLOTS);
    let (free_in, free) = ring(workload, tree, rank);
    let loader = Loader::new(workload.clone(), tree, rank, full_port);
    let supervisor = to_supervisor.map(move |m| SupervisorMessage::Rank(rank, m));
    let (evaluator, abandon) = (to_evaluator.clone(), abandon.clone());
    let ends = Ends { inbox, full, free: free_in, supervisor, evaluator, abandon };
    let model = ModelRank::new(workload.clone(), tree, rank, (handles.to_vec(), depth), ends);
    (LoaderSeat { loader, orders, free }, model)
}

/// The state to begin from, found as a start of the program finds it.
fn begin(world: &World, store: &Store, facts: &RunFacts) -> FirstState {
    store.recover().expect("no trouble is planned before the start");
    let World { workload, slots, layout, .. } = world;
    let state = first_state(&**workload, store, slots, layout, facts, false);
    let state = state.expect("there is a state to begin from");
    store.set_aside_after(state.step).expect("no trouble is planned before the start");
    state
}

/// Parts of the longest task.
fn parts_most(workload: &Toy) -> usize {
    workload.evaluations.iter().map(|task| task.parts as usize).max().unwrap_or(0)
}

fn evaluator(workload: &Toy, to_supervisor: &Port<SupervisorMessage>) -> Evaluator {
    let reports = to_supervisor.map(SupervisorMessage::Evaluated);
    Evaluator::new(TaskInfo::of(&workload.evaluations), 1 << 20, reports)
}

/// The free slots of a rank's ring.
fn ring(workload: &Toy, tree: &LaneTree, rank: usize) -> (Sender<BatchSlot>, Receiver<BatchSlot>) {
    let shape = SlotShape::new(workload, tree, rank);
    let (sender, receiver) = bounded(loader::SLOTS);
    for _ in 0..loader::SLOTS {
        let slot = BatchSlot::without_device(shape).expect("memory");
        sender.try_send(slot).expect("the ring is empty");
    }
    (sender, receiver)
}

/// Gives an actor its next message.
fn feed<A: Actor>(actor: &mut A, inbox: &Receiver<A::Message>, trace: &mut Trace) -> Flow
where
    A::Message: std::fmt::Debug,
{
    let message = inbox.try_recv().expect("it is ready");
    trace.add(|| {
        let mut text = format!("{} <- {message:?}", actor.name());
        text.truncate(text.floor_char_boundary(160));
        text
    });
    match actor.apply(message) {
        Ok(flow) => flow,
        // A crashed disk ends the life anyway.
        Err(fault) if fault.what.contains("simulated crash") => Flow::Stop,
        Err(fault) => panic!("{fault}"),
    }
}
