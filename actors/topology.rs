//! The running system, drawn in one place: every actor, its mailbox, and who may tell it what.
//!
//! | actor | runs on | is told by | tells |
//! |---|---|---|---|
//! | supervisor | arbiter | ranks, evaluator, checkpointer, host, clock, its starter | all below |
//! | rank r | thread | supervisor; slots from loader r | supervisor, evaluator, loader r |
//! | loader r | thread | supervisor; slots from rank r | rank r |
//! | evaluator | arbiter | supervisor, ranks | supervisor |
//! | checkpointer | arbiter | supervisor | supervisor |
//! | watchdog | thread | heartbeats of all above, and of telemetry | supervisor |
//! | telemetry | arbiter | supervisor, host (restarts), its clock | nobody |
//! | web | thread | HTTP | nobody |
//!
//! Nothing is created later. Mailboxes are bounded; each bound is a sum with its reasons.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use octet_kernels::device::Backend;

use crate::actor::{Actor, Closed, Flow, Port};
use crate::agreement::Agreement;
use crate::checkpoint::Store;
use crate::checkpointer::{Checkpointer, CheckpointerMessage, RunFacts};
use crate::contract::Workload;
use crate::engine::Engine;
use crate::evaluator::{Evaluator, EvaluatorMessage, TaskInfo};
use crate::fault::{ActorName, Blame, Fault};
use crate::host::{Host, MailboxLimit, Restart, RestartBudget, Ring, Seat};
use crate::loader::{BatchSlot, Loader, LoaderMessage, SLOTS, orders_max};
use crate::outcome::DEPTH_MAX;
use crate::outside::beating::BeatingDisk;
use crate::outside::{Clock, LocalDisk};
use crate::rank::{self, DataPath, Rank, RankEnds, RankMessage};
use crate::rank_memory::{RankMemory, Zero};
use crate::recovery::{Policy, Recovery};
use crate::resume::FirstState;
use crate::schedule::{Schedule, Work};
use crate::snapshot::{Slot, SnapshotLayout, SnapshotSlots};
use crate::supervisor::{Ending, Ports, RunEnd, Supervisor, SupervisorMessage};
use crate::telemetry::status::Status;
use crate::telemetry::totals::Summary;
use crate::telemetry::{Telemetry, TelemetryMessage, TelemetrySetup};
use crate::watchdog::{Activity, Heartbeats, Pulse, watch};
use crate::web::Web;

pub mod deadlines;

/// Parts of one evaluation, at most: what the evaluator's mailbox and table must hold.
const PARTS_MAX: u64 = 1 << 20;

/// A rank is told one thing at a time, to take a snapshot before it or to go back behind it, and to
/// stop.
const RANK_MESSAGES: usize = 4;

/// How long actors and threads are given to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A host actor that fails more often than this does not fail by chance.
const RESTARTS: usize = 5;
const RESTART_WINDOW: Duration = Duration::from_secs(600);

/// How often the watchdog looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often telemetry looks at memory and disk, and the supervisor at what is due.
const TICK: Duration = Duration::from_secs(5);

/// Where a run begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Begin {
    /// The state, and what a person should know of how it was found.
    pub state: FirstState,
    /// What to do before the first step.
    pub first: Vec<Work>,
    /// Why the engine before this one ended, if the parent process has started it again.
    pub restarted: Option<String>,
}

/// A run that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// How it ended.
    pub end: RunEnd,
    /// What is in `summary.json`; `None` if telemetry was not there any more.
    pub summary: Option<Summary>,
}

/// Everything that a run is made of.
pub struct RunSetup {
    /// What is trained.
    pub workload: Arc<dyn Workload>,
    /// Number of ranks.
    pub ranks: usize,
    /// What they compute on.
    pub backend: Backend,
    /// Placement of the optimizer state.
    pub zero: Zero,
    /// How long whoever works may show no sign of life.
    pub patience: Duration,
    /// What is done when.
    pub schedule: Schedule,
    /// What is done about trouble.
    pub policy: Policy,
    /// The snapshot slots.
    pub slots: Arc<SnapshotSlots>,
    /// Its layout.
    pub layout: Arc<SnapshotLayout>,
    /// Where checkpoints go.
    pub store: Store,
    /// What checkpoints say of the run.
    pub facts: RunFacts,
    /// Makes what telemetry needs, at the start and for every restart.
    pub telemetry: Box<dyn FnMut() -> TelemetrySetup + Send>,
    /// What `/healthz` shows.
    pub status: Arc<Status>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Given one message: save and end.
    pub interrupts: Receiver<()>,
    /// Given messages: save and go on.
    pub saves: Receiver<()>,
    /// Where the run begins.
    pub begin: Begin,
    /// The web server, if there is one; it goes with the run.
    pub web: Option<Web>,
    /// Where the last messages of every actor go when the fault is ours, or somebody does not move.
    pub dump: PathBuf,
}

impl RunSetup {
    fn handles(&self) -> Vec<Slot> {
        self.slots.all(&self.layout)
    }
}

/// Mailboxes of the threads of one rank.
struct RankMail {
    rank: Port<RankMessage>,
    rank_inbox: Receiver<RankMessage>,
    loader: Port<LoaderMessage>,
    orders: Receiver<LoaderMessage>,
}

impl RankMail {
    fn new(rank: usize, tasks: usize, faults: &Port<Fault>) -> Self {
        let (to_rank, rank_inbox) = bounded(RANK_MESSAGES);
        let (to_loader, orders) = bounded(orders_max(tasks));
        Self {
            rank: bounded_port(to_rank, ActorName::Rank(rank), faults.clone()),
            rank_inbox,
            loader: bounded_port(to_loader, ActorName::Loader(rank), faults.clone()),
            orders,
        }
    }
}

/// A port into a thread's mailbox. A full one is a defect of the bound, and said: a message that is
/// lost would be waited for.
fn bounded_port<M: Send + 'static>(
    mailbox: Sender<M>,
    name: ActorName,
    faults: Port<Fault>,
) -> Port<M> {
    Port::new(move |message| {
        mailbox.try_send(message).map_err(|refused| {
            if refused.is_full() {
                faults.tell(Fault::ours(name, "its mailbox is full"));
            }
            Closed
        })
    })
}

/// Runs a workload to its end and takes everything down again.
///
/// # Errors
/// A fault at the start; later ones are in the [`RunEnd`].
pub fn run(mut setup: RunSetup) -> Result<Finished, Fault> {
    let (end_in, end) = bounded(4);
    let end_port = Port::new(move |end: RunEnd| end_in.try_send(end).map_err(|_| Closed));
    let mut host = Host::new(setup.clock.clone());
    let own_faults = {
        let end_port = end_port.clone();
        Port::new(move |fault| end_port.try_tell(RunEnd::failed(fault)))
    };
    let heartbeats = deadlines::heartbeats(&setup);
    let seats = Seats::new(&setup, own_faults).beating(&heartbeats);
    let tasks = setup.workload.evaluations().len();
    let mail = |rank| RankMail::new(rank, tasks, &seats.faults);
    let mails: Vec<RankMail> = (0..setup.ranks).map(mail).collect();
    let agreement = Arc::new(Agreement::default());
    let ports = Ports {
        ranks: mails.iter().map(|mail| mail.rank.clone()).collect(),
        loaders: mails.iter().map(|mail| mail.loader.clone()).collect(),
        evaluator: seats.evaluator.port(),
        checkpointer: seats.checkpointer.port(),
        telemetry: seats.telemetry.port(),
        end: end_port,
    };
    let supervisor = seats.supervisor.port();
    let (rank_ports, telemetry) = (ports.ranks.clone(), ports.telemetry.clone());
    let web = setup.web.take();
    let arenas = start_ranks(&mut host, &setup, &seats, &mails, &agreement, &heartbeats)?;
    let taken = describe(&setup, &arenas);
    drop(mails);
    let (watching, until) = bounded::<Infallible>(0);
    let (faults, status) = (seats.faults.clone(), setup.status.clone());
    host.spawn_thread(ActorName::Watchdog, faults.clone(), move |_| {
        watch(&heartbeats, LOOK_EVERY, &until, &faults, &status);
        Ok(())
    })?;
    seats.start(&mut host, &mut setup, ports)?;
    let Begin { mut state, first, restarted } = setup.begin;
    let recovery = Recovery::from_value(&state.recovery);
    let recovery = recovery.map_err(|e| Fault::world(ActorName::Supervisor, e))?;
    let skips = recovery.skips().clone();
    telemetry.tell(TelemetryMessage::RewindLog { step: state.step, skips });
    if let Some(why) = restarted {
        telemetry.tell(TelemetryMessage::EngineRestarted { why });
    }
    for what in state.notes.drain(..).chain([taken]) {
        telemetry.tell(TelemetryMessage::Note { what });
    }
    supervisor.tell(SupervisorMessage::Start { state, first });
    let ending = wait(&end, (&setup.interrupts, &setup.saves), &supervisor, &agreement);
    for port in &rank_ports {
        port.tell(RankMessage::Stop);
    }
    let (told, summary) = bounded(1);
    let told = Port::new(move |summary: Summary| told.try_send(summary).map_err(|_| Closed));
    telemetry.tell(TelemetryMessage::Finish { saved: ending.saved.clone(), told });
    let summary = summary.recv_timeout(PATIENCE).ok();
    drop((supervisor, rank_ports, telemetry, watching));
    if let Some(web) = web {
        web.stop();
    }
    if let Ending::Failed(fault) = &ending.ending
        && (fault.blame == Blame::Ours || fault.actor == ActorName::Watchdog)
    {
        // If even this fails there is nothing left to say it to.
        let _unwritten = host.dump(&LocalDisk, &setup.dump, &fault.to_string());
    }
    // Whoever has not ended by then holds nothing that matters and goes with the process.
    let _stuck = host.stop(PATIENCE);
    Ok(Finished { end: ending, summary })
}

/// How the run is spread, and the bytes of the arenas that its ranks have taken.
fn describe(setup: &RunSetup, arenas: &[usize]) -> String {
    let RunSetup { ranks, backend, zero, .. } = setup;
    let (ranks, stage) =
        (if *ranks == 1 { "1 rank" } else { &format!("{ranks} ranks") }, zero.stage());
    format!("{ranks} on {backend}; ZeRO-{stage}; bytes of their arenas: {arenas:?}")
}

/// Waits for the end; passes interrupts on.
fn wait(
    end: &Receiver<RunEnd>,
    (interrupts, saves): (&Receiver<()>, &Receiver<()>),
    supervisor: &Port<SupervisorMessage>,
    agreement: &Agreement,
) -> RunEnd {
    let gone = || Fault::ours(ActorName::Supervisor, "the supervisor left without a word");
    let mut listening = true;
    let mut saves = saves.clone();
    loop {
        if !listening {
            return end.recv().unwrap_or_else(|_| RunEnd::failed(gone()));
        }
        select! {
            recv(saves) -> save => match save {
                Ok(()) => supervisor.tell(SupervisorMessage::Save),
                Err(_) => saves = crossbeam::channel::never(),
            },
            recv(end) -> ending => return ending.unwrap_or_else(|_| RunEnd::failed(gone())),
            recv(interrupts) -> interrupt => {
                listening = false;
                if interrupt.is_ok() {
                    // Told first: whoever gives something up is expected to.
                    supervisor.tell(SupervisorMessage::Interrupt);
                    agreement.give_up();
                }
            }
        }
    }
}

/// The mailboxes of the actors behind actix.
struct Seats {
    supervisor: Seat<SupervisorMessage>,
    evaluator: Seat<EvaluatorMessage>,
    checkpointer: Seat<CheckpointerMessage>,
    telemetry: Seat<TelemetryMessage>,
    faults: Port<Fault>,
    /// The checkpointer's, for what it does while it handles a message.
    writing: Option<Pulse>,
}

impl Seats {
    fn new(setup: &RunSetup, own_faults: Port<Fault>) -> Self {
        let ranks = setup.ranks;
        let limit = MailboxLimit::of(&[
            ("a reply of each rank", ranks),
            ("places and outcomes of the steps of each rank", 2 * DEPTH_MAX * ranks),
            ("a snapshot of each rank", ranks),
            ("a fault of each rank", ranks),
            ("a fault of each loader", ranks),
            ("faults of host actors", 8),
            ("an evaluation", 1),
            ("both snapshots, and that old ones stay", 4),
            ("a way back", 1),
            ("start and interrupt", 2),
            ("somebody who wants it saved, again and again", 64),
        ]);
        let supervisor = Seat::new(ActorName::Supervisor, &limit, own_faults)
            .every(TICK, || SupervisorMessage::Tick);
        let faults = supervisor.port().map(SupervisorMessage::Fault);
        let tasks = setup.workload.evaluations();
        let parts = tasks.iter().map(|task| task.parts as usize).max().unwrap_or(0);
        let limit = MailboxLimit::of(&[("begin", 1), ("abandon", 1), ("parts of a task", parts)]);
        let evaluator = Seat::new(ActorName::Evaluator, &limit, faults.clone());
        let limit = MailboxLimit::of(&[("both snapshots", 2), ("a way back", 1)]);
        let checkpointer = Seat::new(ActorName::Checkpointer, &limit, faults.clone());
        let limit = MailboxLimit::of(&[
            ("steps while a slow disk takes a line", 4096),
            ("evaluations and checkpoints among them", 512),
            ("restarts", 64),
        ]);
        let telemetry = Seat::new(ActorName::Telemetry, &limit, faults.clone())
            .every(TICK, || TelemetryMessage::Tick);
        Self { supervisor, evaluator, checkpointer, telemetry, faults, writing: None }
    }

    /// The same, known to the watchdog.
    fn beating(self, heartbeats: &Heartbeats) -> Self {
        let pulse = |actor| heartbeats.pulse(actor);
        Self {
            supervisor: self.supervisor.beating(pulse(ActorName::Supervisor)),
            evaluator: self.evaluator.beating(pulse(ActorName::Evaluator)),
            checkpointer: self.checkpointer.beating(pulse(ActorName::Checkpointer)),
            telemetry: self.telemetry.beating(pulse(ActorName::Telemetry)),
            faults: self.faults,
            writing: pulse(ActorName::Checkpointer),
        }
    }

    fn start(self, host: &mut Host, setup: &mut RunSetup, ports: Ports) -> Result<(), Fault> {
        let budget = || RestartBudget::new(RESTARTS, RESTART_WINDOW);
        let told = ports.telemetry.map(|fault| TelemetryMessage::Restarted { fault });
        let restart = || Restart::Within { budget: budget(), told: told.clone() };
        let observer = Restart::Observer { budget: budget(), told: told.clone() };
        let mut make = std::mem::replace(&mut setup.telemetry, Box::new(|| unreachable!("taken")));
        host.start(self.telemetry, observer, move || Telemetry::start(make()))?;
        let tasks = TaskInfo::of(setup.workload.evaluations());
        let reports = self.supervisor.port().map(SupervisorMessage::Evaluated);
        host.start(self.evaluator, restart(), move || {
            Ok(Evaluator::new(tasks.clone(), PARTS_MAX, reports.clone()))
        })?;
        let replies = self.supervisor.port().map(SupervisorMessage::Checkpoint);
        let (slots, layout, writing) = (setup.slots.clone(), setup.layout.clone(), self.writing);
        let beat = move || writing.iter().for_each(|pulse| pulse.beat(Activity::Writing));
        let store = setup.store.clone().through(|disk| Arc::new(BeatingDisk::new(disk, beat)));
        let (facts, clock, workload) =
            (setup.facts.clone(), setup.clock.clone(), setup.workload.clone());
        host.start(self.checkpointer, restart(), move || {
            let (slots, layout) = (slots.clone(), layout.clone());
            let (clock, facts, replies) = (clock.clone(), facts.clone(), replies.clone());
            let (store, workload) = (store.clone(), workload.clone());
            Ok(Checkpointer::new(store, slots, layout, clock, facts, workload, replies))
        })?;
        let mut supervisor = Some(Supervisor::new(
            setup.workload.clone(),
            setup.schedule,
            setup.policy,
            ports,
            (setup.handles(), &setup.facts),
            setup.clock.clone(),
        ));
        host.start(self.supervisor, Restart::Never, move || {
            let once = || Fault::ours(ActorName::Supervisor, "it is never started again");
            supervisor.take().ok_or_else(once)
        })
    }
}

fn start_ranks(
    host: &mut Host,
    setup: &RunSetup,
    seats: &Seats,
    mails: &[RankMail],
    agreement: &Arc<Agreement>,
    heartbeats: &Heartbeats,
) -> Result<Vec<usize>, Fault> {
    let mut arenas = Vec::new();
    let devices = setup.backend.open(setup.ranks, deadlines::peers(setup));
    let devices = devices.map_err(|e| Fault::of_device(ActorName::Supervisor, e))?;
    for (rank, (open, mail)) in devices.into_iter().zip(mails).enumerate() {
        let name = ActorName::Rank(rank);
        let plan = RankMemory::new(&*setup.workload, setup.ranks, rank, setup.zero);
        let memory = plan.map_err(|e| Fault::ours(name, e))?;
        let (full_in, full) = bounded::<BatchSlot>(SLOTS);
        let (free_in, free) = bounded::<BatchSlot>(SLOTS);
        let to_rank = Port::new(move |slot| full_in.try_send(slot).map_err(|_| Closed));
        let loader = Loader::new(setup.workload.clone(), &memory.tree, rank, to_rank);
        let orders = mail.orders.clone();
        let pulse = heartbeats.pulse(ActorName::Loader(rank));
        host.spawn_thread(ActorName::Loader(rank), seats.faults.clone(), move |_| {
            run_loader(loader, &orders, &free, pulse.as_ref())
        })?;
        let ends = RankEnds {
            slots: setup.handles(),
            data: DataPath { full, free: free_in },
            depth: setup.schedule.depth,
            patience: deadlines::peers(setup),
            clock: setup.clock.clone(),
            supervisor: seats.supervisor.port().map(move |m| SupervisorMessage::Rank(rank, m)),
            evaluator: seats.evaluator.port(),
            agreement: agreement.clone(),
            pulse: heartbeats.pulse(name),
        };
        let (workload, inbox) = (setup.workload.clone(), mail.rank_inbox.clone());
        let (took, taken) = bounded(1);
        host.spawn_thread(name, seats.faults.clone(), move |ring| {
            let started = open().and_then(|(device, communicator)| {
                Ok((Engine::new(workload, memory, device)?, communicator))
            });
            let started = started.map_err(|e| Fault::of_device(name, e));
            let bytes = started.as_ref().map(|(engine, _)| engine.arena_bytes());
            // Nobody listens any more if the start failed elsewhere.
            let _start_failed = took.send(bytes.map_err(Clone::clone));
            let (engine, communicator) = started?;
            run_rank(Rank::new(engine, communicator, ends)?, &inbox, ring)
        })?;
        arenas.push(taken);
    }
    let no_memory = |_| Fault::world(ActorName::Supervisor, "a rank did not get its memory");
    arenas.iter().map(|taken| taken.recv().map_err(no_memory)?).collect()
}

/// A rank's thread. Whatever ends it, its device is done before its memory goes.
fn run_rank(mut rank: Rank, inbox: &Receiver<RankMessage>, ring: &Ring) -> Result<(), Fault> {
    let end = serve_rank(&mut rank, inbox, ring);
    rank.leave();
    end
}

/// Messages one at a time until a rank is told to stop.
fn serve_rank(rank: &mut Rank, inbox: &Receiver<RankMessage>, ring: &Ring) -> Result<(), Fault> {
    loop {
        let patience = if rank.is_watching() { rank::LOOK_EVERY } else { Duration::MAX };
        match inbox.recv_timeout(patience) {
            Ok(message) => {
                ring.record(&message);
                if rank.apply(message)? == Flow::Stop {
                    return Ok(());
                }
            }
            Err(RecvTimeoutError::Timeout) => rank.look()?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// A loader's thread: orders and free slots as they come, until nobody can send either.
fn run_loader(
    mut loader: Loader,
    orders: &Receiver<LoaderMessage>,
    free: &Receiver<BatchSlot>,
    pulse: Option<&Pulse>,
) -> Result<(), Fault> {
    let beat = |activity| pulse.iter().for_each(|pulse| pulse.beat(activity));
    loop {
        beat(Activity::Idle);
        let message = select! {
            recv(orders) -> order => order.ok(),
            recv(free) -> slot => slot.ok().map(LoaderMessage::Free),
        };
        // Its rank or its supervisor is gone: nobody needs another slot.
        let Some(message) = message else { return Ok(()) };
        beat(Activity::Loading);
        loader.apply(message)?;
    }
}
