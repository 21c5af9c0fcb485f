//! Stalls as data: who beat when, doing what; and who is named.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{bounded, unbounded};
use proptest::prelude::{Strategy, any, prop, proptest};

use super::{Activity, Heartbeats, Row, SIMPLE, Snapshot, Watch, check, watch};
use crate::actor::{Closed, Port};
use crate::fault::{ActorName, Blame};
use crate::outside::{Clock, ManualClock, SystemClock};
use crate::telemetry::status::Status;

const DEADLINE: Duration = Duration::from_secs(30);
const NOW: Duration = Duration::from_secs(1000);
const EVERY: Duration = Duration::from_secs(1);
const RANK_0: ActorName = ActorName::Rank(0);
const RANK_1: ActorName = ActorName::Rank(1);
const LOADER: ActorName = ActorName::Loader(0);
const SAVER: ActorName = ActorName::Checkpointer;

/// Who last beat how many seconds ago, and has been doing what.
fn snapshot(rows: &[(ActorName, u64, Activity)]) -> Snapshot {
    let row = |&(actor, seconds, activity): &(ActorName, u64, Activity)| Row {
        actor,
        beat: NOW - Duration::from_secs(seconds),
        activity,
        deadline: DEADLINE,
        at_first: DEADLINE,
    };
    Snapshot { rows: rows.iter().map(row).collect() }
}

fn verdict(rows: &[(ActorName, u64, Activity)]) -> Option<String> {
    check(&snapshot(rows), NOW).map(|stall| stall.to_string())
}

#[test]
fn nobody_is_late() {
    let rows = [
        (RANK_0, 30, Activity::Computing),
        (LOADER, 900, Activity::Idle),
        (SAVER, 0, Activity::Writing),
    ];
    assert_eq!(verdict(&rows), None, "idle may last, and the deadline is not past");
}

#[test]
fn one_that_does_not_move_is_named_with_what_it_did() {
    let rows = [(RANK_0, 41, Activity::Computing), (LOADER, 5, Activity::Loading)];
    let expected = "rank 0 has been computing for 41 s without moving";
    assert_eq!(verdict(&rows).as_deref(), Some(expected));
}

#[test]
fn the_oldest_beat_is_not_the_culprit_if_it_waits_for_another() {
    let rows = [
        (RANK_0, 90, Activity::WaitingFor(LOADER)),
        (LOADER, 50, Activity::WaitingFor(SAVER)),
        (SAVER, 40, Activity::Writing),
    ];
    let stall = check(&snapshot(&rows), NOW).unwrap();
    assert_eq!((stall.culprit, stall.activity), (SAVER, Activity::Writing));
    assert_eq!(stall.age, Duration::from_secs(40));
    assert_eq!(stall.waiting, [RANK_0, LOADER]);
    let expected = "checkpointer has been writing for 40 s without moving; \
                    waiting for it: rank 0, loader 0";
    assert_eq!(stall.to_string(), expected);
}

#[test]
fn a_slow_one_that_moves_is_no_culprit() {
    let rows = [(RANK_0, 90, Activity::WaitingFor(LOADER)), (LOADER, 2, Activity::Loading)];
    assert_eq!(verdict(&rows), None);
}

#[test]
fn one_that_idles_while_others_wait_for_it_is_the_culprit() {
    let rows = [(RANK_0, 60, Activity::WaitingFor(LOADER)), (LOADER, 61, Activity::Idle)];
    let expected = "loader 0 has been idle for 61 s without moving; rank 0 waits for it";
    assert_eq!(verdict(&rows).as_deref(), Some(expected));
    let rows = [(RANK_0, 60, Activity::WaitingFor(LOADER)), (LOADER, 1, Activity::Idle)];
    assert_eq!(verdict(&rows), None, "it has only just answered");
}

#[test]
fn another_stall_behind_a_slow_one_is_found() {
    let rows = [
        (RANK_0, 90, Activity::WaitingFor(LOADER)),
        (LOADER, 2, Activity::Loading),
        (SAVER, 35, Activity::Writing),
    ];
    assert!(verdict(&rows).unwrap().starts_with("checkpointer has been writing for 35 s"));
}

#[test]
fn the_rank_that_does_not_come_to_a_collective_is_the_culprit() {
    let rows = [
        (RANK_0, 70, Activity::WaitingForRanks),
        (ActorName::Rank(2), 69, Activity::WaitingForRanks),
        (RANK_1, 65, Activity::WaitingFor(LOADER)),
        (LOADER, 64, Activity::Loading),
    ];
    let stall = check(&snapshot(&rows), NOW).unwrap();
    assert_eq!((stall.culprit, stall.waiting.as_slice()), (LOADER, [RANK_0, RANK_1].as_slice()));
}

#[test]
fn a_collective_in_which_every_rank_waits_is_named_as_such() {
    let rows = [(RANK_0, 50, Activity::WaitingForRanks), (RANK_1, 45, Activity::WaitingForRanks)];
    let expected = "rank 0 has been waiting for the other ranks for 50 s without moving, \
                    and so has every rank";
    assert_eq!(verdict(&rows).as_deref(), Some(expected));
    let rows = [(RANK_0, 50, Activity::WaitingForRanks), (RANK_1, 4, Activity::WaitingForRanks)];
    assert_eq!(verdict(&rows), None, "the last has only just come");
}

#[test]
fn a_circle_of_waits_ends_the_search() {
    let rows =
        [(RANK_0, 50, Activity::WaitingFor(LOADER)), (LOADER, 45, Activity::WaitingFor(RANK_0))];
    let expected = "loader 0 has been waiting for rank 0 for 45 s without moving, \
                    in a circle of waits; rank 0 waits for it";
    assert_eq!(verdict(&rows).as_deref(), Some(expected));
    let rows = [(RANK_0, 50, Activity::WaitingFor(RANK_0))];
    assert!(verdict(&rows).unwrap().contains("in a circle"));
    let rows =
        [(RANK_0, 50, Activity::WaitingFor(LOADER)), (LOADER, 3, Activity::WaitingFor(RANK_0))];
    assert_eq!(verdict(&rows), None, "messages may be on their way");
}

fn any_activity() -> impl Strategy<Value = Activity> {
    let names = prop::sample::select(vec![RANK_0, RANK_1, LOADER, SAVER]);
    let all = (any::<u8>(), names).prop_map(|(kind, whom)| match kind % 11 {
        9 => Activity::WaitingForRanks,
        10 => Activity::WaitingFor(whom),
        simple => SIMPLE[usize::from(simple)],
    });
    all.boxed()
}

proptest! {
    #[test]
    fn a_culprit_is_late_and_the_search_ends(
        ages in prop::collection::vec(0..90u64, 4),
        doing in prop::collection::vec(any_activity(), 4),
    ) {
        let names = [RANK_0, RANK_1, LOADER, SAVER];
        let rows: Vec<_> = (0..4).map(|i| (names[i], ages[i], doing[i])).collect();
        let snapshot = snapshot(&rows);
        if let Some(stall) = check(&snapshot, NOW) {
            let late = |name| snapshot.rows.iter().any(|r| r.actor == name && r.is_late(NOW));
            assert!(late(stall.culprit) && stall.waiting.iter().all(|name| late(*name)));
        }
    }

    #[test]
    fn the_table_gives_back_what_was_beaten(ms in 0..1u64 << 43, activity in any_activity()) {
        let clock = Arc::new(ManualClock::new());
        let actors = [RANK_0, RANK_1, LOADER, SAVER].map(|actor| (actor, DEADLINE));
        let table = Heartbeats::new(clock.clone(), &actors);
        clock.advance(Duration::from_millis(ms));
        table.pulse(LOADER).unwrap().beat(activity);
        let row = table.snapshot().rows[2];
        let beat = Duration::from_millis(ms);
        let (actor, deadline, at_first) = (LOADER, DEADLINE, DEADLINE);
        assert_eq!(row, Row { actor, beat, activity, deadline, at_first });
    }
}

#[test]
fn who_is_not_in_the_table_has_no_pulse_and_is_not_waited_for() {
    let table = Heartbeats::new(Arc::new(ManualClock::new()), &[(RANK_0, DEADLINE)]);
    assert!(table.pulse(LOADER).is_none());
    let pulse = table.pulse(RANK_0).unwrap();
    pulse.beat(Activity::WaitingFor(LOADER));
    assert_eq!(table.snapshot().rows[0].activity, Activity::Idle);
    pulse.set_deadline(EVERY);
    assert_eq!(table.snapshot().rows[0].deadline, EVERY);
}

#[test]
fn a_stall_is_named_once_and_the_next_one_again() {
    let clock = Arc::new(ManualClock::new());
    let table = Heartbeats::new(clock.clone(), &[(RANK_0, DEADLINE)]);
    let pulse = table.pulse(RANK_0).unwrap();
    let mut watch = Watch::default();
    let mut stalls_within = |seconds: u64| {
        let look = |_| {
            clock.advance(EVERY);
            watch.look(table.snapshot(), clock.monotonic(), EVERY)
        };
        (0..seconds).filter_map(look).count()
    };
    pulse.beat(Activity::Computing);
    assert_eq!(stalls_within(30), 0);
    assert_eq!(stalls_within(30), 1);
    pulse.beat(Activity::Computing);
    assert_eq!(stalls_within(30), 0);
    assert_eq!(stalls_within(30), 1);
}

#[test]
fn how_long_somebody_may_take_is_learned_from_how_long_it_took() {
    let clock = Arc::new(ManualClock::new());
    let hour = Duration::from_secs(3600);
    let table = Heartbeats::learning(clock.clone(), &[(RANK_0, DEADLINE, hour)]);
    let pulse = table.pulse(RANK_0).unwrap();
    let mut watch = Watch::default();
    let mut stalls_within = |seconds: u64| {
        let look = |_| {
            clock.advance(EVERY);
            watch.look(table.snapshot(), clock.monotonic(), EVERY)
        };
        (0..seconds).filter_map(look).count()
    };
    // Nothing is known of it yet, and its first program is a long one.
    pulse.beat(Activity::Computing);
    assert_eq!(stalls_within(3000), 0);
    for _ in 0..20 {
        pulse.beat(Activity::Computing);
        assert_eq!(stalls_within(8), 0);
        // Waiting for orders tells nothing of its pace.
        pulse.beat(Activity::Idle);
        assert_eq!(stalls_within(500), 0);
    }
    pulse.beat(Activity::Computing);
    assert_eq!(stalls_within(30_000), 0, "it took 3,000 s once");
    assert_eq!(stalls_within(10), 1);
    // A quick one is given its deadline, and no more.
    let table = Heartbeats::learning(clock.clone(), &[(RANK_0, DEADLINE, hour)]);
    let pulse = table.pulse(RANK_0).unwrap();
    let mut watch = Watch::default();
    let mut stalled_after = |seconds: u64| {
        clock.advance(EVERY);
        watch.look(table.snapshot(), clock.monotonic(), EVERY);
        (1..=seconds).find(|_| {
            clock.advance(EVERY);
            watch.look(table.snapshot(), clock.monotonic(), EVERY).is_some()
        })
    };
    for _ in 0..40 {
        pulse.beat(Activity::Computing);
        assert_eq!(stalled_after(1), None);
    }
    assert_eq!(stalled_after(100), Some(28));
}

#[test]
fn a_pause_of_the_whole_process_is_nobodys_fault() {
    let clock = Arc::new(ManualClock::new());
    let table = Heartbeats::new(clock.clone(), &[(RANK_0, DEADLINE)]);
    table.pulse(RANK_0).unwrap().beat(Activity::Computing);
    let mut watch = Watch::default();
    let mut look = |seconds: u64| {
        clock.advance(Duration::from_secs(seconds));
        watch.look(table.snapshot(), clock.monotonic(), EVERY).map(|stall| stall.age.as_secs())
    };
    assert_eq!(look(1), None);
    assert_eq!(look(3600), None, "the machine slept");
    for _ in 0..30 {
        assert_eq!(look(1), None);
    }
    assert_eq!(look(1), Some(31), "but it does not move since then either");
}

#[test]
fn the_thread_tells_the_fault_and_ends_when_let_go() {
    let table = Heartbeats::new(Arc::new(SystemClock::new()), &[(RANK_0, Duration::ZERO)]);
    table.pulse(RANK_0).unwrap().beat(Activity::Reducing);
    let (sender, faults) = unbounded();
    let port = Port::new(move |fault| sender.send(fault).map_err(|_| Closed));
    let (go_on, until) = bounded::<Infallible>(0);
    let status = Arc::new(Status::new(Duration::ZERO, Duration::from_secs(3600)));
    assert!(status.health(Duration::ZERO).ok);
    let shown = status.clone();
    let thread = std::thread::spawn(move || {
        watch(&table, Duration::from_millis(5), &until, &port, &shown);
    });
    let fault = faults.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!((fault.actor, fault.blame), (ActorName::Watchdog, Blame::World));
    assert!(fault.what.starts_with("rank 0 has been reducing for"), "{fault}");
    assert!(!status.health(Duration::ZERO).ok, "/healthz says so");
    drop(go_on);
    thread.join().unwrap();
}
