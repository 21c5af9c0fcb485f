//! The only file that knows actix: mailboxes, threads and restarts for actors.
//!
//! Each actor has a thread (an arbiter) and a bounded mailbox of its own. A full mailbox is a
//! fault, never a silent loss and never a wait. A panic or a fault costs the actor its state, not
//! its mailbox: a fresh one reads on, within a budget. Knows nothing of what any actor does.

pub mod restart_budget;
pub mod ring;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::fmt;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use actix::dev::channel::{AddressReceiver, channel};
use actix::prelude::SendError;
use actix::{ActorContext, System, SystemRunner};
use actix::{Addr, Arbiter, AsyncContext, Context, Handler, Message};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde::Serialize;

use crate::actor::{Actor, Closed, Flow, Port};
use crate::fault::{ActorName, Blame, Fault};
use crate::outside::{Clock, Disk, DiskError};
use crate::run_folder::replace_json;
use crate::watchdog::{Activity, Pulse};

pub use restart_budget::RestartBudget;
use ring::Event;
pub use ring::Ring;

/// How many messages may wait in a mailbox: a sum, with the reason for each part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxLimit {
    reasons: Vec<(&'static str, usize)>,
}

impl MailboxLimit {
    /// The sum of these, at least 1.
    #[must_use]
    pub fn of(reasons: &[(&'static str, usize)]) -> Self {
        Self { reasons: reasons.to_vec() }
    }

    /// The sum.
    #[must_use]
    pub fn total(&self) -> usize {
        self.reasons.iter().map(|(_, count)| count).sum::<usize>().max(1)
    }
}

impl fmt::Display for MailboxLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.total())?;
        for (index, (reason, count)) in self.reasons.iter().enumerate() {
            let sign = if index == 0 { "=" } else { "+" };
            write!(f, " {sign} {count} {reason}")?;
        }
        Ok(())
    }
}

/// What happens to an actor that failed.
#[derive(Debug, Clone)]
pub enum Restart {
    /// Its mailbox closes, and the fault goes to whoever decides.
    Never,
    /// As [`Self::Within`], for one that only observes: even a panic costs no more than its state.
    Observer {
        /// How often.
        budget: RestartBudget,
        /// Told why, each time.
        told: Port<Fault>,
    },
    /// A fresh one takes over its mailbox, while the budget lasts. A panic still goes to whoever
    /// decides: others wait for what was lost.
    Within {
        /// How often.
        budget: RestartBudget,
        /// Told why, each time.
        told: Port<Fault>,
    },
}

/// What a mailbox carries; `Debug` is for the dump.
pub trait Mail: Debug + Send + 'static {}

impl<M: Debug + Send + 'static> Mail for M {}

/// A mailbox whose actor is not there yet, so that actors can be given ports to each other.
pub struct Seat<M: Mail> {
    name: ActorName,
    addr: Addr<Hosted<M>>,
    mailbox: AddressReceiver<Hosted<M>>,
    port: Port<M>,
    faults: Port<Fault>,
    full: Arc<AtomicBool>,
    every: Option<Periodic<M>>,
    pulse: Option<Pulse>,
}

type Periodic<M> = (Duration, fn() -> M);

impl<M: Mail> Debug for Seat<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seat of {}", self.name)
    }
}

impl<M: Mail> Seat<M> {
    /// A mailbox for `limit` messages. `faults` is told when it is full, and of every fault of
    /// the actor that a restart does not settle: it leads to the supervisor, and for the
    /// supervisor itself to whoever started the run.
    #[must_use]
    pub fn new(name: ActorName, limit: &MailboxLimit, faults: Port<Fault>) -> Self {
        let (sender, mailbox) = channel::<Hosted<M>>(limit.total());
        let addr = Addr::new(sender);
        let full = Arc::new(AtomicBool::new(false));
        let port = {
            // One sender for all: each clone of an address has a place of its own beyond the bound.
            let (addr, full, faults, limit) =
                (addr.clone(), full.clone(), faults.clone(), limit.clone());
            Port::new(move |message| match addr.try_send(Letter(message)) {
                Ok(()) => Ok(()),
                Err(SendError::Closed(_)) => Err(Closed),
                Err(SendError::Full(_)) => {
                    // Said once, until the actor reads again: each says the same.
                    if !full.swap(true, Ordering::Relaxed) {
                        let what = format!("the mailbox of {name} is full: {limit}");
                        faults.tell(Fault::world(name, what));
                    }
                    Err(Closed)
                }
            })
        };
        Self { name, addr, mailbox, port, faults, full, every: None, pulse: None }
    }

    /// The right to tell this actor. Messages wait until it is started.
    #[must_use]
    pub fn port(&self) -> Port<M> {
        self.port.clone()
    }

    /// The actor shows the watchdog when it begins with a message and when it is done.
    #[must_use]
    pub fn beating(mut self, pulse: Option<Pulse>) -> Self {
        self.pulse = pulse;
        self
    }

    /// The actor is also told `message` every `period`.
    #[must_use]
    pub fn every(mut self, period: Duration, message: fn() -> M) -> Self {
        self.every = Some((period, message));
        self
    }
}

/// Houses actors and threads, and ends them in the reverse order of their start.
pub struct Host {
    // Arbiters belong to a system; this one only lends its name.
    _system: SystemRunner,
    clock: Arc<dyn Clock>,
    rings: Vec<(ActorName, Arc<Ring>)>,
    residents: Vec<(ActorName, Resident)>,
}

enum Resident {
    Actor { arbiter: Arbiter, close: Box<dyn Fn()>, gone: Receiver<()> },
    Thread(JoinHandle<()>),
}

impl Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.residents.iter().map(|(name, _)| name)).finish()
    }
}

impl Host {
    /// An empty host, for the calling thread.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { _system: System::new(), clock, rings: Vec::new(), residents: Vec::new() }
    }

    /// Starts the actor of a seat on a thread of its own, and returns once it stands. `factory`
    /// runs there, at first and for each restart.
    ///
    /// # Errors
    /// The fault of the factory, or a fault of the world if there is no thread.
    pub fn start<A: Actor>(
        &mut self,
        seat: Seat<A::Message>,
        restart: Restart,
        mut factory: impl FnMut() -> Result<A, Fault> + Send + 'static,
    ) -> Result<(), Fault>
    where
        A::Message: Debug,
    {
        let Seat { name, addr, mailbox, faults, full, every, pulse, .. } = seat;
        let no_thread = |e| Fault::world(name, format!("cannot start a thread: {e}"));
        let arbiter = Arbiter::try_new().map_err(no_thread)?;
        let (stands, standing) = bounded(1);
        let (here, gone) = bounded(0);
        let ring = self.new_ring(name);
        let clock = self.clock.clone();
        arbiter.spawn_fn(move || {
            let mut factory: Factory<A::Message> =
                Box::new(move || factory().map(|actor| Box::new(actor) as Boxed<A::Message>));
            let actor = match guarded(name, &mut factory) {
                Ok(actor) => Some(actor),
                Err(fault) => return drop(stands.send(Err(fault))),
            };
            let hosted = Hosted {
                name,
                actor,
                factory,
                restart,
                faults,
                full,
                ring,
                clock,
                every,
                pulse,
                _here: here,
            };
            Context::with_receiver(mailbox).run(hosted);
            drop(stands.send(Ok(())));
        });
        let silent = || Err(Fault::ours(name, "its thread ended while it started"));
        if let Err(fault) = standing.recv().unwrap_or_else(|_| silent()) {
            arbiter.stop();
            let _panicked = arbiter.join();
            return Err(fault);
        }
        // This one message may exceed the bound: a full mailbox must not outlive the run.
        let close = Box::new(move || addr.do_send(Close));
        self.residents.push((name, Resident::Actor { arbiter, close, gone }));
        Ok(())
    }

    /// Starts a plain thread (a rank, a loader). A panic, or a fault that `body` returns, goes to
    /// `faults`; it is never restarted. `body` gets the ring that the dump shows.
    ///
    /// # Errors
    /// A fault of the world: there is no thread.
    pub fn spawn_thread(
        &mut self,
        name: ActorName,
        faults: Port<Fault>,
        body: impl FnOnce(&Ring) -> Result<(), Fault> + Send + 'static,
    ) -> Result<(), Fault> {
        let ring = self.new_ring(name);
        let run = move || {
            if let Err(fault) = guarded(name, || body(&ring)) {
                ring.record(&fault);
                faults.tell(fault);
            }
        };
        let spawned = std::thread::Builder::new().name(name.to_string()).spawn(run);
        let thread =
            spawned.map_err(|e| Fault::world(name, format!("cannot start a thread: {e}")))?;
        self.residents.push((name, Resident::Thread(thread)));
        Ok(())
    }

    /// Writes the last events of every actor and thread, and why. Takes them: a second dump shows
    /// what came after the first.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn dump(&self, disk: &dyn Disk, path: &Path, why: &str) -> Result<(), DiskError> {
        let actors = self
            .rings
            .iter()
            .map(|(name, ring)| ActorDump { actor: name.to_string(), events: ring.take() });
        let dump = Dump { unix_ms: self.clock.unix_ms(), why, actors: actors.collect() };
        replace_json(disk, path, &dump)
    }

    /// Ends everything, the last started first. An actor first takes what is in its mailbox; a
    /// thread ends by itself, when what it waits for is closed. Returns after at most `patience`,
    /// with the names of those that had not ended and are left to the end of the process.
    #[must_use]
    pub fn stop(mut self, patience: Duration) -> Vec<ActorName> {
        let deadline = Instant::now() + patience;
        let mut stuck = Vec::new();
        while let Some((name, resident)) = self.residents.pop() {
            let ended = match resident {
                Resident::Actor { arbiter, close, gone } => {
                    close();
                    let ended = gone.recv_deadline(deadline) == Err(RecvTimeoutError::Disconnected);
                    // `System::stop` would wait for nobody, so each arbiter is stopped and joined.
                    arbiter.stop();
                    ended && arbiter.join().is_ok()
                }
                Resident::Thread(thread) => {
                    while !thread.is_finished() && Instant::now() < deadline {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    thread.is_finished() && thread.join().is_ok()
                }
            };
            if !ended {
                stuck.push(name);
            }
        }
        stuck
    }

    fn new_ring(&mut self, name: ActorName) -> Arc<Ring> {
        let ring = Arc::new(Ring::new(self.clock.clone()));
        self.rings.push((name, ring.clone()));
        ring
    }
}

#[derive(Serialize)]
struct Dump<'a> {
    unix_ms: u64,
    why: &'a str,
    actors: Vec<ActorDump>,
}

#[derive(Serialize)]
struct ActorDump {
    actor: String,
    events: Vec<Event>,
}

type Boxed<M> = Box<dyn Actor<Message = M>>;
type Factory<M> = Box<dyn FnMut() -> Result<Boxed<M>, Fault>>;

struct Letter<M>(M);

impl<M: Send + 'static> Message for Letter<M> {
    type Result = ();
}

struct Close;

impl Message for Close {
    type Result = ();
}

/// An actor behind its mailbox, on its arbiter.
struct Hosted<M: Mail> {
    name: ActorName,
    /// `None` only after it has stopped.
    actor: Option<Boxed<M>>,
    factory: Factory<M>,
    restart: Restart,
    faults: Port<Fault>,
    full: Arc<AtomicBool>,
    ring: Arc<Ring>,
    clock: Arc<dyn Clock>,
    every: Option<Periodic<M>>,
    pulse: Option<Pulse>,
    /// Its disconnection tells the host that this is gone.
    _here: Sender<()>,
}

impl<M: Mail> Hosted<M> {
    fn take(&mut self, message: M, context: &mut Context<Self>) {
        self.full.store(false, Ordering::Relaxed);
        self.ring.record(&message);
        self.apply(message, context);
    }

    /// Without a record: what comes every few seconds would push everything else out of it.
    fn apply(&mut self, message: M, context: &mut Context<Self>) {
        let Some(actor) = &mut self.actor else { return };
        beat(&self.pulse, Activity::Handling);
        let done = guarded(self.name, || actor.apply(message));
        beat(&self.pulse, Activity::Idle);
        match done {
            Ok(Flow::Continue) => {}
            Ok(Flow::Stop) => self.end(context),
            Err(fault) => self.recover(fault, context),
        }
    }

    /// Puts a fresh actor in the place of a failed one, or gives up.
    fn recover(&mut self, mut fault: Fault, context: &mut Context<Self>) {
        self.ring.record(&fault);
        self.drop_actor();
        let observes = matches!(self.restart, Restart::Observer { .. });
        while let Restart::Within { budget, told } | Restart::Observer { budget, told } =
            &mut self.restart
        {
            if !budget.spend(self.clock.monotonic()) {
                fault.what = format!("{} ({} are spent)", fault.what, budget.describe());
                break;
            }
            match guarded(self.name, &mut self.factory) {
                Ok(actor) => {
                    self.actor = Some(actor);
                    // A broken assertion ends the run: the fresh actor only helps to end it well.
                    let settled = observes || fault.blame == Blame::World;
                    if settled {
                        told.tell(fault)
                    } else {
                        self.faults.tell(fault)
                    }
                    return;
                }
                Err(again) => fault = again,
            }
            self.ring.record(&fault);
        }
        self.faults.tell(fault);
        self.end(context);
    }

    fn end(&mut self, context: &mut Context<Self>) {
        self.drop_actor();
        context.stop();
    }

    /// A failed actor may fail to drop as well; that adds nothing to what is known.
    fn drop_actor(&mut self) {
        let actor = self.actor.take();
        let dropped = guarded(self.name, || {
            drop(actor);
            Ok(())
        });
        if let Err(fault) = dropped {
            self.ring.record(&fault);
        }
    }
}

impl<M: Mail> actix::Actor for Hosted<M> {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        if let Some((period, message)) = self.every {
            context.run_interval(period, move |hosted, context| hosted.apply(message(), context));
        }
    }
}

impl<M: Mail> Handler<Letter<M>> for Hosted<M> {
    type Result = ();

    fn handle(&mut self, Letter(message): Letter<M>, context: &mut Context<Self>) {
        self.take(message, context);
    }
}

impl<M: Mail> Handler<Close> for Hosted<M> {
    type Result = ();

    fn handle(&mut self, _: Close, context: &mut Context<Self>) {
        self.end(context);
    }
}

fn beat(pulse: &Option<Pulse>, activity: Activity) {
    if let Some(pulse) = pulse {
        pulse.beat(activity);
    }
}

/// Runs `body`; a panic is our fault. What it was working on is dropped by the caller.
fn guarded<T>(name: ActorName, body: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        Err(Fault::ours(name, format!("panicked: {}", panic_message(&*payload))))
    })
}

fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
