//! The host with small actors on real threads.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};

use super::restart_budget::RestartBudget;
use super::ring::{EVENT_BYTES, RING_EVENTS, Ring};
use super::{Host, MailboxLimit, Restart, Seat};
use crate::actor::{Actor, Closed, Flow, Port};
use crate::fault::{ActorName, Blame, Fault};
use crate::outside::faulty::FaultyDisk;
use crate::outside::{Clock, Disk, ManualClock, SystemClock};
use crate::watchdog::{Activity, Heartbeats, check};

const LONG: Duration = Duration::from_secs(10);
const NAME: ActorName = ActorName::Evaluator;

#[derive(Debug)]
enum Order {
    Say(u32),
    /// Waits until the gate opens.
    Wait(Receiver<()>),
    Fail,
    Panic,
    Stop,
}

/// Says what it is told, with the number of its life. Holds what cannot leave its thread.
struct Parrot {
    life: Rc<u32>,
    said: Sender<(u32, u32)>,
}

impl Actor for Parrot {
    type Message = Order;

    fn name(&self) -> ActorName {
        NAME
    }

    fn apply(&mut self, order: Order) -> Result<Flow, Fault> {
        match order {
            Order::Say(word) => self.said.send((*self.life, word)).unwrap(),
            Order::Wait(gate) => drop(gate.recv()),
            Order::Fail => return Err(Fault::world(NAME, "the disk is gone")),
            Order::Panic => panic!("two and two is five"),
            Order::Stop => return Ok(Flow::Stop),
        }
        Ok(Flow::Continue)
    }
}

impl Drop for Parrot {
    fn drop(&mut self) {
        // Nobody may be left to hear it.
        let _heard = self.said.send((*self.life, 0));
    }
}

fn port<M: Send + 'static>() -> (Port<M>, Receiver<M>) {
    let (sender, receiver) = unbounded();
    (Port::new(move |message| sender.send(message).map_err(|_| Closed)), receiver)
}

/// One parrot, and everything it can be asked through.
struct Cage {
    host: Host,
    parrot: Port<Order>,
    said: Receiver<(u32, u32)>,
    faults: Receiver<Fault>,
    restarted: Receiver<Fault>,
}

impl Cage {
    /// `lives` parrots can be made; three restarts are allowed.
    fn new(limit: usize, lives: u32) -> Self {
        let mut host = Host::new(Arc::new(SystemClock::new()));
        let (told, restarted) = port();
        let (faults_port, faults) = port();
        let (says, said) = unbounded();
        let limit = MailboxLimit::of(&[("orders", limit)]);
        let seat = Seat::<Order>::new(NAME, &limit, faults_port);
        let parrot = seat.port();
        let restart = Restart::Within { budget: RestartBudget::new(3, LONG), told };
        let mut life = 0;
        let factory = move || {
            life += 1;
            if life > lives {
                return Err(Fault::world(NAME, "no more eggs"));
            }
            Ok(Parrot { life: Rc::new(life), said: says.clone() })
        };
        host.start(seat, restart, factory).unwrap();
        Self { host, parrot, said, faults, restarted }
    }

    fn heard(&self) -> (u32, u32) {
        self.said.recv_timeout(LONG).unwrap()
    }

    fn fault(&self) -> Fault {
        self.faults.recv_timeout(LONG).unwrap()
    }

    /// Waits until the mailbox is closed.
    fn is_closed(&self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < LONG {
            if self.parrot.try_tell(Order::Say(99)).is_err() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }
}

#[test]
fn messages_come_in_order_and_a_stop_takes_them_first() {
    let cage = Cage::new(100, 1);
    for word in 1..=50 {
        cage.parrot.tell(Order::Say(word));
    }
    assert!(cage.host.stop(LONG).is_empty());
    let said: Vec<_> = cage.said.try_iter().map(|(_, word)| word).collect();
    let expected: Vec<_> = (1..=50).chain([0]).collect();
    assert_eq!(said, expected, "all words, then the destructor");
    assert_eq!(cage.parrot.try_tell(Order::Say(1)), Err(Closed));
}

#[test]
fn a_full_mailbox_is_a_fault_said_once_and_not_a_wait() {
    let cage = Cage::new(3, 1);
    let (gate, waiting) = bounded(0);
    cage.parrot.tell(Order::Wait(waiting));
    std::thread::sleep(Duration::from_millis(50));
    let taken = (1..=10).filter(|word| cage.parrot.try_tell(Order::Say(*word)).is_ok()).count();
    assert_eq!(taken, 3);
    let fault = cage.fault();
    assert_eq!(fault.what, "the mailbox of evaluator is full: 3 = 3 orders");
    assert_eq!((fault.actor, fault.blame), (NAME, Blame::World));
    assert!(cage.faults.try_recv().is_err());
    gate.send(()).unwrap();
    assert_eq!([cage.heard(), cage.heard(), cage.heard()], [(1, 1), (1, 2), (1, 3)]);
    cage.parrot.try_tell(Order::Say(11)).unwrap();
    assert_eq!(cage.heard(), (1, 11));
    assert!(cage.host.stop(LONG).is_empty());
}

#[test]
fn an_observer_survives_its_panics_and_its_faults() {
    let mut host = Host::new(Arc::new(SystemClock::new()));
    let ((told, restarted), (faults_port, faults)) = (port(), port());
    let (says, said) = unbounded();
    let seat = Seat::<Order>::new(NAME, &MailboxLimit::of(&[("orders", 8)]), faults_port);
    let parrot = seat.port();
    let restart = Restart::Observer { budget: RestartBudget::new(3, LONG), told };
    let mut life = 0;
    let factory = move || {
        life += 1;
        Ok(Parrot { life: Rc::new(life), said: says.clone() })
    };
    host.start(seat, restart, factory).unwrap();
    for order in [Order::Panic, Order::Fail, Order::Say(5)] {
        parrot.tell(order);
    }
    let fault = restarted.recv_timeout(LONG).unwrap();
    assert_eq!(fault.what, "panicked: two and two is five");
    assert_eq!(restarted.recv_timeout(LONG).unwrap().what, "the disk is gone");
    let heard: Vec<_> = (0..3).map(|_| said.recv_timeout(LONG).unwrap()).collect();
    assert_eq!(heard, [(1, 0), (2, 0), (3, 5)]);
    assert!(faults.is_empty(), "nobody has to decide anything");
    assert!(host.stop(LONG).is_empty());
}

#[test]
fn the_watchdog_names_an_actor_that_is_stuck_in_a_message() {
    let clock = Arc::new(ManualClock::new());
    let deadline = Duration::from_secs(60);
    let table = Heartbeats::new(clock.clone(), &[(NAME, deadline)]);
    let mut host = Host::new(Arc::new(SystemClock::new()));
    let ((told, _restarted), (faults_port, _faults)) = (port(), port());
    let (says, said) = unbounded();
    let seat = Seat::<Order>::new(NAME, &MailboxLimit::of(&[("orders", 8)]), faults_port)
        .beating(table.pulse(NAME));
    let parrot = seat.port();
    let restart = Restart::Within { budget: RestartBudget::new(3, LONG), told };
    host.start(seat, restart, move || Ok(Parrot { life: Rc::new(1), said: says.clone() })).unwrap();
    let (open, gate) = bounded::<()>(0);
    parrot.tell(Order::Wait(gate));
    let begun = Instant::now();
    while table.snapshot().rows[0].activity != Activity::Handling {
        assert!(begun.elapsed() < LONG, "it never takes the message");
        std::thread::yield_now();
    }
    clock.advance(deadline);
    assert_eq!(check(&table.snapshot(), clock.monotonic()), None);
    clock.advance(Duration::from_secs(1));
    let stall = check(&table.snapshot(), clock.monotonic()).expect("it is late");
    let wanted = "evaluator has been handling a message for 61 s without moving";
    assert_eq!(stall.to_string(), wanted);
    drop(open);
    parrot.tell(Order::Say(1));
    assert_eq!(said.recv_timeout(LONG).unwrap(), (1, 1));
    drop(parrot);
    assert!(host.stop(LONG).is_empty());
    assert_eq!(table.snapshot().rows[0].activity, Activity::Idle);
}

#[test]
fn a_panic_costs_the_state_and_not_the_mailbox() {
    let cage = Cage::new(10, 2);
    let (gate, waiting) = bounded(0);
    cage.parrot.tell(Order::Wait(waiting));
    for order in [Order::Say(1), Order::Panic, Order::Say(2)] {
        cage.parrot.try_tell(order).unwrap();
    }
    gate.send(()).unwrap();
    assert_eq!([cage.heard(), cage.heard(), cage.heard()], [(1, 1), (1, 0), (2, 2)]);
    let fault = cage.fault();
    assert_eq!((fault.actor, fault.blame), (NAME, Blame::Ours));
    assert_eq!(fault.what, "panicked: two and two is five");
    assert!(cage.restarted.try_recv().is_err(), "ours is for the supervisor to decide");
    assert!(cage.host.stop(LONG).is_empty());
}

#[test]
fn the_world_is_survived_alone_until_the_budget_is_spent() {
    let cage = Cage::new(10, 9);
    for life in 1..=3 {
        cage.parrot.tell(Order::Fail);
        assert_eq!(cage.heard(), (life, 0));
        cage.parrot.tell(Order::Say(7));
        assert_eq!(cage.heard(), (life + 1, 7));
        assert_eq!(cage.restarted.recv_timeout(LONG).unwrap().what, "the disk is gone");
    }
    assert!(cage.faults.try_recv().is_err());
    cage.parrot.tell(Order::Fail);
    assert_eq!(cage.fault().what, "the disk is gone (3 restarts within 10 s are spent)");
    assert!(cage.is_closed());
    assert!(cage.host.stop(LONG).is_empty());
}

#[test]
fn a_factory_that_fails_spends_the_budget_too() {
    let cage = Cage::new(10, 1);
    cage.parrot.tell(Order::Fail);
    assert_eq!(cage.fault().what, "no more eggs (3 restarts within 10 s are spent)");
    assert!(cage.is_closed());
    assert!(cage.restarted.try_recv().is_err());
    assert!(cage.host.stop(LONG).is_empty());
}

#[test]
fn without_a_restart_the_mailbox_closes() {
    let mut host = Host::new(Arc::new(SystemClock::new()));
    let (faults_port, faults) = port();
    let limit = MailboxLimit::of(&[]);
    assert_eq!(limit.total(), 1);
    let seat = Seat::<Order>::new(NAME, &limit, faults_port);
    let parrot = seat.port();
    let (said, _) = unbounded();
    let factory = move || Ok(Parrot { life: Rc::new(1), said: said.clone() });
    host.start(seat, Restart::Never, factory).unwrap();
    parrot.try_tell(Order::Fail).unwrap();
    assert_eq!(faults.recv_timeout(LONG).unwrap().what, "the disk is gone");
    assert!(host.stop(LONG).is_empty());
}

#[test]
fn a_start_that_fails_says_why() {
    let mut host = Host::new(Arc::new(SystemClock::new()));
    let start = |host: &mut Host, panics: bool| {
        let seat = Seat::<Order>::new(NAME, &MailboxLimit::of(&[]), port().0);
        let parrot = seat.port();
        let factory = move || {
            assert!(!panics, "not today");
            Err::<Parrot, _>(Fault::world(NAME, "no egg"))
        };
        let fault = host.start(seat, Restart::Never, factory).unwrap_err();
        assert_eq!(parrot.try_tell(Order::Say(1)), Err(Closed));
        (fault.blame, fault.what)
    };
    assert_eq!(start(&mut host, false), (Blame::World, "no egg".to_owned()));
    assert_eq!(start(&mut host, true), (Blame::Ours, "panicked: not today".to_owned()));
    assert!(host.stop(LONG).is_empty());
}

#[test]
fn an_actor_that_stops_closes_its_mailbox() {
    let cage = Cage::new(10, 1);
    cage.parrot.tell(Order::Stop);
    assert_eq!(cage.heard(), (1, 0));
    assert!(cage.is_closed());
    assert!(cage.faults.try_recv().is_err());
    assert!(cage.host.stop(LONG).is_empty());
}

#[test]
fn a_stop_names_those_that_do_not_end_and_does_not_wait_for_them() {
    let mut cage = Cage::new(10, 1);
    let (actor_gate, actor_waits) = bounded(0);
    let (thread_gate, thread_waits) = bounded::<()>(0);
    cage.parrot.tell(Order::Wait(actor_waits));
    let body = move |_: &Ring| {
        assert!(thread_waits.recv().is_err());
        Ok(())
    };
    cage.host.spawn_thread(ActorName::Rank(0), port().0, body).unwrap();
    let begun = Instant::now();
    let stuck = cage.host.stop(Duration::from_millis(100));
    assert_eq!(stuck, [ActorName::Rank(0), NAME], "the last started first");
    assert!(begun.elapsed() < LONG);
    drop((actor_gate, thread_gate));
}

#[test]
fn a_thread_reports_its_panic_and_its_fault() {
    let mut host = Host::new(Arc::new(SystemClock::new()));
    let (faults_port, faults) = port();
    let spawn = |host: &mut Host, rank, body: fn(&Ring) -> Result<(), Fault>| {
        host.spawn_thread(ActorName::Rank(rank), faults_port.clone(), body).unwrap();
    };
    spawn(&mut host, 0, |_| panic!("index {} is out of range", 9));
    let fault = faults.recv_timeout(LONG).unwrap();
    assert_eq!(fault, Fault::ours(ActorName::Rank(0), "panicked: index 9 is out of range"));
    spawn(&mut host, 1, |_| Err(Fault::world(ActorName::Rank(1), "out of memory")));
    assert_eq!(faults.recv_timeout(LONG).unwrap().what, "out of memory");
    spawn(&mut host, 2, |_| Ok(()));
    assert!(host.stop(LONG).is_empty());
    assert!(faults.try_recv().is_err());
}

/// A parrot that holds the only sender of a thread.
struct Holder(Parrot, #[expect(dead_code, reason = "held")] Option<Sender<()>>);

impl Actor for Holder {
    type Message = Order;

    fn name(&self) -> ActorName {
        self.0.name()
    }

    fn apply(&mut self, order: Order) -> Result<Flow, Fault> {
        self.0.apply(order)
    }
}

#[test]
fn a_thread_that_waits_for_an_actor_ends_when_that_is_gone() {
    let mut host = Host::new(Arc::new(SystemClock::new()));
    let (orders, received) = unbounded::<()>();
    let body = move |_: &Ring| {
        assert!(received.recv().is_err());
        Ok(())
    };
    let (faults_port, faults) = port();
    host.spawn_thread(ActorName::Rank(0), faults_port.clone(), body).unwrap();
    // The actor holds the thread's only sender, as the supervisor holds the ports of the ranks.
    let mut orders = Some(orders);
    let (said, _) = unbounded();
    let seat = Seat::<Order>::new(NAME, &MailboxLimit::of(&[]), port().0);
    let factory =
        move || Ok(Holder(Parrot { life: Rc::new(1), said: said.clone() }, orders.take()));
    host.start(seat, Restart::Never, factory).unwrap();
    assert!(host.stop(LONG).is_empty());
    assert!(faults.try_recv().is_err());
}

#[test]
fn periodic_messages_come() {
    let mut host = Host::new(Arc::new(SystemClock::new()));
    let (said, heard) = unbounded();
    let seat = Seat::<Order>::new(NAME, &MailboxLimit::of(&[]), port().0)
        .every(Duration::from_millis(5), || Order::Say(5));
    let factory = move || Ok(Parrot { life: Rc::new(1), said: said.clone() });
    host.start(seat, Restart::Never, factory).unwrap();
    for _ in 0..3 {
        assert_eq!(heard.recv_timeout(LONG).unwrap(), (1, 5));
    }
    assert!(host.stop(LONG).is_empty());
}

#[test]
fn the_dump_shows_the_last_events_of_everybody() {
    let mut cage = Cage::new(200, 2);
    for word in 1..=100 {
        cage.parrot.try_tell(Order::Say(word)).unwrap();
    }
    cage.parrot.tell(Order::Panic);
    let fault = cage.fault();
    let (done, ended) = bounded(1);
    let body = move |ring: &Ring| {
        ring.record(&"step 7");
        done.send(()).unwrap();
        Ok(())
    };
    cage.host.spawn_thread(ActorName::Rank(3), port().0, body).unwrap();
    ended.recv_timeout(LONG).unwrap();
    let disk = FaultyDisk::new();
    cage.host.dump(&disk, Path::new("dump.json"), &fault.to_string()).unwrap();
    let text = disk.read(Path::new("dump.json")).unwrap();
    let dump: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(dump["why"], "evaluator: panicked: two and two is five");
    assert_eq!(dump["actors"][0]["actor"], "evaluator");
    let events = dump["actors"][0]["events"].as_array().unwrap();
    assert_eq!(events.len(), RING_EVENTS);
    let what = |index: usize| events[index]["what"].as_str().unwrap();
    assert_eq!(what(RING_EVENTS - 2), "Panic");
    assert_eq!(what(RING_EVENTS - 3), "Say(100)");
    assert!(what(RING_EVENTS - 1).contains("two and two"), "{}", what(RING_EVENTS - 1));
    assert_eq!(dump["actors"][1]["actor"], "rank 3");
    assert_eq!(dump["actors"][1]["events"][0]["what"], "\"step 7\"");
    assert!(cage.host.stop(LONG).is_empty());
}

#[test]
fn a_long_event_is_cut_at_a_character() {
    let ring = Ring::new(Arc::new(SystemClock::new()));
    ring.record(&vec!["é".repeat(90); 4]);
    let events = ring.take();
    let text = &events[0].what;
    assert!(text.len() <= EVENT_BYTES && text.len() > EVENT_BYTES - 4, "{text}");
    assert!(text.starts_with("[\"éé"), "{text}");
    assert!(ring.take().is_empty());
}

#[test]
fn a_budget_counts_within_its_window() {
    let second = Duration::from_secs;
    let mut budget = RestartBudget::new(2, second(60));
    let spent: Vec<_> = [0, 10, 20, 61, 62, 71, 200].map(|at| budget.spend(second(at))).into();
    assert_eq!(spent, [true, true, false, true, false, true, true]);
    assert!(!RestartBudget::new(0, second(60)).spend(second(0)));
}
