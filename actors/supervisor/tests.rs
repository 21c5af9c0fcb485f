//! The supervisor fed with messages: what it tells whom, and in which order.

use std::time::Duration;

use super::{Ending, SupervisorMessage};
use crate::checkpointer::CheckpointerReply;
use crate::evaluator::EvaluatorMessage;
use crate::fault::{ActorName, Blame, Fault};
use crate::loader::orders_max;
use crate::rank::{RankReply, StepOutcome};
use crate::schedule::Schedule;
use crate::snapshot::SLOTS;
use crate::telemetry::TelemetryMessage;

mod bench;
mod depth;

use super::space::PATIENCE_S;
use bench::{Bench, RANKS, STEPS, Saves, Told, evaluation, outcome, schedule};

#[test]
fn work_comes_in_order_and_a_snapshot_last() {
    let mut bench = Bench::begun();
    bench.play();
    let expected = [
        "restore 0",
        "step 0",
        "step 1",
        "evaluate 0 at 2",
        "evaluate 1 at 2",
        "snapshot",
        // The run goes on while it is copied out, and written.
        "step 2",
        "save 2 after None",
        "step 3",
        "evaluate 0 at 4",
        "evaluate 1 at 4",
        "drive at 4",
        "snapshot",
        "save 4 after Some(\"digest 2\")",
    ];
    assert_eq!(bench.works, expected);
    assert_eq!(bench.ending(), (&Ending::Finished, 4, Some("digest 4")));
    assert_eq!(bench.reported(), [1, 2, 3, 4]);
    assert!(bench.orders_most <= orders_max(2) && bench.orders == 0);
    let evaluations = bench.telemetry.iter();
    let evaluations = evaluations.filter(|m| matches!(m, TelemetryMessage::Evaluation(_)));
    assert_eq!(evaluations.count(), 4);
}

#[test]
fn a_run_waits_for_a_free_slot_and_counts_the_wait() {
    let schedule = Schedule {
        steps: 4,
        evaluate_every: 0,
        checkpoint_every: 1,
        memory_every: 0,
        drive_every: 0,
        depth: 1,
    };
    let mut bench = Bench::new(schedule);
    bench.saves = Saves::Wait;
    bench.start(0, None);
    bench.play();
    // Two are being written, and the third step is done.
    assert_eq!(bench.held.iter().map(|h| h.1).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(bench.reported(), [1, 2, 3]);
    assert_eq!(bench.works.iter().rfind(|work| work.starts_with("step")).unwrap(), "step 2");
    bench.clock.advance(Duration::from_millis(250));
    bench.release(true);
    bench.play();
    assert_eq!(bench.held.iter().map(|h| h.1).collect::<Vec<_>>(), [2, 3]);
    // The copy of 3 ms comes on top of the wait.
    assert_eq!(bench.checkpoint_wait_ms(), [0.0, 3.0, 3.0, 253.0]);
    bench.saves = Saves::Work;
    while !bench.held.is_empty() {
        assert_eq!(bench.end, None, "it ends before everything is saved");
        bench.release(true);
        bench.play();
    }
    assert_eq!(bench.saved, [1, 2, 3, 4]);
    assert_eq!(bench.ending(), (&Ending::Finished, 4, Some("digest 4")));
}

#[test]
fn a_new_snapshot_never_takes_the_newest_good_slot_while_another_is_free() {
    let mut bench = Bench::begun();
    bench.saves = Saves::Fail;
    bench.play_until("snapshot");
    bench.play_until("step");
    let newest = |bench: &Bench| bench.slots.newest_good(&bench.layout).good.unwrap();
    let first = newest(&bench);
    assert_eq!(first.head.step, 2);
    bench.play_until("snapshot");
    assert_eq!(newest(&bench), first, "the only good state is given away");
    bench.saves = Saves::Work;
    bench.play();
    assert_eq!(newest(&bench).head.step, 4);
    assert!(newest(&bench).head.sequence > first.head.sequence);
}

#[test]
fn a_step_that_overflows_is_tried_again_with_larger_programs() {
    let mut bench = Bench::begun();
    bench.overflows = vec![(1, 0), (1, 1), (2, 0)];
    bench.play();
    let steps: Vec<&str> =
        bench.works.iter().map(String::as_str).filter(|w| w.starts_with("step")).collect();
    let expected = [
        "step 0",
        "step 1",
        "step 1 again 1",
        "step 1 again 2",
        "step 2",
        "step 2 again 1",
        "step 3",
    ];
    assert_eq!(steps, expected);
    assert_eq!(bench.reported(), [1, 2, 3, 4]);
    assert_eq!(bench.works.iter().filter(|w| w.starts_with("evaluate")).count(), 4);
    assert_eq!(bench.saved, [2, 4]);
    assert_eq!(bench.ending().0, &Ending::Finished);
}

#[test]
fn updates_may_be_bad_but_not_too_many_in_a_row() {
    let mut bench = Bench::begun();
    bench.skips = vec![0, 2];
    bench.play();
    assert_eq!(bench.ending().0, &Ending::Finished);
    // Those that were skipped do not count, and the state says so.
    assert_eq!(bench.updates, [0, 0, 1, 1].map(Some));
    let heads = (0..SLOTS).filter_map(|i| bench.slots.slot(i, &bench.layout).head().ok());
    let newest = heads.max_by_key(|head| head.step).unwrap();
    assert_eq!((newest.step, &newest.cursor["updates"]), (4, &2.into()));
    let mut bench = Bench::begun();
    bench.skips = vec![1, 2];
    bench.play();
    // Nothing is saved between the two, and the second leads back to before the first.
    let steps: Vec<&str> = bench.works.iter().map(String::as_str).collect();
    let wanted = ["step 1", "evaluate 0 at 2", "evaluate 1 at 2", "step 2", "rewind 0"];
    assert_eq!(steps[2..7], wanted);
    assert_eq!(steps[7..10], ["restore 0", "step 0 on 3", "step 1 on 4"]);
    assert_eq!(bench.ending(), (&Ending::Finished, 4, Some("digest 4")));
    let told = |m: &TelemetryMessage| match m {
        TelemetryMessage::RollBack(report) => Some(report.clone()),
        _ => None,
    };
    let reports: Vec<_> = bench.telemetry.iter().filter_map(told).collect();
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!((report.step, report.at, report.number), (0, 3, 1));
    assert_eq!((report.first_batch, report.batches), (0, 3));
}

#[test]
fn roll_backs_are_spent_and_the_run_stops_with_its_state_saved() {
    let mut bench = Bench::begun();
    bench.skips = vec![2, 3, 4, 5];
    bench.play();
    let (Ending::Failed(fault), 2, Some("digest 2")) = bench.ending() else {
        panic!("{:?}", bench.ending());
    };
    assert_eq!(fault.blame, Blame::Decided);
    assert!(fault.what.starts_with("2 bad updates in a row, the last at step 3"), "{fault}");
    assert!(fault.what.contains("1 roll-backs are spent"), "{fault}");
    let end = bench.works.iter().rposition(|work| work == "rewind 2").unwrap();
    assert_eq!(bench.works[end + 1..], ["restore 0", "snapshot", "save 2 after None"]);
}

#[test]
fn an_interrupt_on_the_way_back_saves_the_earlier_state() {
    let mut bench = Bench::begun();
    bench.skips = vec![1, 2];
    bench.play_until("step 2");
    while !bench.works.iter().any(|work| work == "step 2") {
        bench.answer();
    }
    bench.interrupt();
    bench.play();
    assert!(bench.works.iter().any(|work| work == "rewind 0"), "{:?}", bench.works);
    assert_eq!(bench.ending(), (&Ending::Interrupted, 0, Some("digest 0")));
}

#[test]
fn snapshots_in_memory_are_sealed_and_never_waited_for() {
    let schedule =
        Schedule { checkpoint_every: 0, memory_every: 1, evaluate_every: 0, ..schedule() };
    let mut bench = Bench::new(schedule);
    bench.start(0, None);
    bench.play();
    let kept: Vec<_> = bench.works.iter().filter(|work| work.starts_with("se")).collect();
    assert_eq!(kept, ["seal 1", "seal 2", "seal 3"]);
    assert_eq!(bench.saved, [4]);
    // While both slots are being written there is none, and steps go on.
    let mut bench = Bench::new(Schedule { checkpoint_every: 1, memory_every: 0, ..schedule });
    bench.saves = Saves::Wait;
    bench.start(0, None);
    bench.play_until("step 2");
    bench.supervisor.schedule.checkpoint_every = 0;
    bench.supervisor.schedule.memory_every = 3;
    bench.play();
    assert_eq!(bench.reported(), [1, 2, 3]);
    assert!(!bench.works.iter().any(|work| work == "seal 3"), "{:?}", bench.works);
}

#[test]
fn an_interrupt_at_any_point_ends_with_the_state_saved() {
    for (point, step) in [
        ("restore", 0),
        ("step 0", 1),
        ("step 1", 2),
        ("evaluate", 2),
        // The next step is given by then.
        ("snapshot", 3),
        ("drive", 4),
    ] {
        let mut bench = Bench::begun();
        bench.play_until(point);
        bench.interrupt();
        bench.play();
        let ending = if step == STEPS { Ending::Finished } else { Ending::Interrupted };
        let digest = format!("digest {step}");
        assert_eq!(bench.ending(), (&ending, step, Some(digest.as_str())), "at {point}");
        assert_eq!(bench.saved, [vec![2; usize::from(step > 2)], vec![step]].concat(), "{point}");
    }
}

#[test]
fn an_interrupt_before_the_start_loses_nothing() {
    let mut bench = Bench::new(schedule());
    bench.interrupt();
    bench.start(2, Some("on disk"));
    bench.play();
    assert_eq!(bench.works, ["restore 0"]);
    assert_eq!(bench.ending(), (&Ending::Interrupted, 2, Some("on disk")));
}

#[test]
fn an_interrupt_while_a_snapshot_is_written_waits_for_it() {
    let mut bench = Bench::begun();
    bench.saves = Saves::Wait;
    bench.play_until("step 2");
    bench.interrupt();
    // The step that runs is given up: it changed nothing.
    bench.tell_checkpointer();
    bench.waiting.clear();
    for rank in 0..RANKS {
        let outcome = StepOutcome { abandoned: true, skipped: true, ..outcome() };
        bench.went(rank, outcome);
    }
    bench.play();
    assert_eq!((bench.end.as_ref(), bench.reported()), (None, vec![1, 2]));
    bench.release(true);
    bench.play();
    assert_eq!(bench.ending(), (&Ending::Interrupted, 2, Some("digest 2")));
    assert_eq!(bench.saved, [2], "the same state is saved once");
}

#[test]
fn ranks_may_give_up_an_evaluation_before_the_interrupt_is_heard() {
    let mut bench = Bench::begun();
    bench.sums = false;
    bench.play_until("evaluate");
    bench.waiting.clear();
    for rank in 0..RANKS {
        bench.tell(SupervisorMessage::Rank(rank, RankReply::Evaluated));
    }
    bench.play();
    assert_eq!(bench.end, None, "the sum may still come");
    bench.interrupt();
    let abandoned = |told: &Told| matches!(told, Told::Evaluator(EvaluatorMessage::Abandon));
    assert!(bench.waiting.iter().any(abandoned));
    // The sum was on its way after all, and nobody waits for it.
    bench.tell(SupervisorMessage::Evaluated(evaluation(2, 0)));
    bench.play();
    assert_eq!(bench.ending(), (&Ending::Interrupted, 2, Some("digest 2")));
}

#[test]
fn a_checkpoint_that_fails_stops_the_run_only_at_its_end() {
    let mut bench = Bench::begun();
    bench.saves = Saves::Fail;
    bench.play_until("step 2");
    bench.tell_checkpointer();
    // What is not on disk is saved again by an interrupt.
    bench.interrupt();
    bench.saves = Saves::Work;
    bench.waiting.retain(|told| !matches!(told, Told::Rank(..)));
    for rank in 0..RANKS {
        let outcome = StepOutcome { abandoned: true, ..outcome() };
        bench.went(rank, outcome);
    }
    bench.play();
    assert_eq!(bench.ending(), (&Ending::Interrupted, 2, Some("digest 2")));
    let noted = |m: &&TelemetryMessage| matches!(m, TelemetryMessage::Note { .. });
    assert_eq!(bench.telemetry.iter().filter(noted).count(), 1);

    let mut bench = Bench::begun();
    bench.play_until("drive");
    bench.saves = Saves::Fail;
    bench.play();
    let (Ending::Failed(fault), 4, Some("digest 2")) = bench.ending() else {
        panic!("{:?}", bench.ending());
    };
    assert_eq!((fault.actor, fault.blame), (ActorName::Checkpointer, Blame::World));
}

/// A run whose last save has just found no space.
fn out_of_space() -> Bench {
    let mut bench = Bench::begun();
    bench.play_until("drive");
    bench.saves = Saves::Full;
    bench.play();
    assert_eq!(bench.end, None, "it waits for space");
    bench
}

/// Some seconds pass.
fn pass(bench: &mut Bench, seconds: u64) {
    bench.clock.advance(Duration::from_secs(seconds));
    bench.tell(SupervisorMessage::Tick);
    bench.play();
}

fn tries(bench: &Bench) -> usize {
    bench.works.iter().filter(|work| work.starts_with("save 4")).count()
}

#[test]
fn the_last_save_waits_for_space() {
    let mut bench = out_of_space();
    let note = bench.notes().pop().unwrap();
    assert!(note.contains("tried again in 5 s, and for up to 300 s more"), "{note}");
    for (seconds, tried) in [(4, 1), (1, 2), (9, 2), (1, 3)] {
        pass(&mut bench, seconds);
        assert_eq!((tries(&bench), bench.end.as_ref()), (tried, None), "{:?}", bench.notes());
    }
    bench.saves = Saves::Work;
    pass(&mut bench, 20);
    assert_eq!(bench.ending(), (&Ending::Finished, 4, Some("digest 4")));
    assert_eq!(bench.saved, [2, 4]);
}

#[test]
fn space_that_does_not_come_ends_the_run_for_good() {
    let mut bench = out_of_space();
    let mut waited = 0;
    while bench.end.is_none() {
        pass(&mut bench, 1);
        waited += 1;
    }
    let (Ending::Failed(fault), 4, Some("digest 2")) = bench.ending() else {
        panic!("{:?}", bench.ending());
    };
    // Another engine would wait as long for nothing.
    assert_eq!((fault.actor, fault.blame), (ActorName::Checkpointer, Blame::Lasting));
    assert_eq!(waited, PATIENCE_S as u64);
    // At 0, 5, 15, 35, 75, then every minute, and at the end.
    assert_eq!(tries(&bench), 9);
}

#[test]
fn an_interrupt_while_space_is_looked_for_leaves_that_try_the_last() {
    let mut bench = out_of_space();
    bench.saves = Saves::Wait;
    pass(&mut bench, 5);
    assert_eq!((tries(&bench), bench.end.as_ref()), (2, None));
    bench.interrupt();
    bench.play();
    assert_eq!((tries(&bench), bench.end.as_ref()), (2, None));
    bench.saves = Saves::Full;
    bench.release(false);
    bench.play();
    assert!(matches!(bench.ending().0, Ending::Failed(_)), "{:?}", bench.end);
}

#[test]
fn a_run_that_is_interrupted_and_finds_no_space_tries_once_more() {
    let mut bench = Bench::begun();
    bench.play_until("step 2");
    bench.tell_checkpointer();
    bench.saves = Saves::Full;
    bench.interrupt();
    bench.play();
    let mut waited = 0;
    while bench.end.is_none() {
        pass(&mut bench, 1);
        waited += 1;
    }
    let saves = bench.works.iter().filter(|work| work.starts_with("save 3")).count();
    assert_eq!((waited, saves), (5, 2), "{:?}", bench.works);
}

#[test]
fn an_interrupt_ends_the_wait_for_space_with_one_more_try() {
    for saves in [Saves::Work, Saves::Full] {
        let mut bench = out_of_space();
        bench.saves = saves;
        bench.interrupt();
        bench.play();
        assert_eq!(tries(&bench), 2);
        let saved = saves == Saves::Work;
        assert_eq!(matches!(bench.ending().0, Ending::Finished), saved, "{:?}", bench.end);
        assert_eq!(bench.saved.last(), Some(if saved { &4 } else { &2 }));
    }
}

#[test]
fn an_earlier_save_without_space_is_not_waited_for() {
    let mut bench = Bench::begun();
    bench.saves = Saves::Full;
    bench.play_until("step 2");
    bench.play_until("snapshot");
    bench.saves = Saves::Work;
    bench.play();
    assert_eq!(bench.ending(), (&Ending::Finished, 4, Some("digest 4")));
    assert!(bench.notes()[0].contains("the run goes on"), "{:?}", bench.notes());
}

#[test]
fn an_older_checkpoint_may_fail_while_the_last_one_is_written() {
    let mut bench = Bench::begun();
    bench.saves = Saves::Wait;
    bench.play();
    assert_eq!(bench.held.iter().map(|h| h.1).collect::<Vec<_>>(), [2, 4]);
    bench.release(false);
    bench.release(true);
    bench.play();
    assert_eq!(bench.ending(), (&Ending::Finished, 4, Some("digest 4")));
}

#[test]
fn a_slot_that_changed_under_the_checkpointer_is_our_failure() {
    let mut bench = Bench::begun();
    bench.saves = Saves::Wait;
    bench.play_until("step 2");
    bench.tell_checkpointer();
    let (slot, step) = bench.held[0];
    let fault = Fault::ours(ActorName::Checkpointer, "it holds another step");
    let reply = CheckpointerReply::Failed { step, slot, fault: fault.clone(), no_space: false };
    bench.tell(SupervisorMessage::Checkpoint(reply));
    bench.play();
    assert_eq!(bench.ending().0, &Ending::Failed(fault));
}

#[test]
fn a_fault_ends_the_run_and_nothing_follows() {
    let mut bench = Bench::begun();
    bench.play_until("step 1");
    let fault = Fault::world(ActorName::Loader(1), "a shard has vanished");
    bench.tell(SupervisorMessage::Fault(fault.clone()));
    bench.waiting.retain(|told| !matches!(told, Told::Rank(..)));
    let works = bench.works.len();
    for rank in 0..RANKS {
        let reply = RankReply::Stepped(Box::new(outcome()));
        bench.tell(SupervisorMessage::Rank(rank, reply));
    }
    bench.tell(SupervisorMessage::Fault(fault.clone()));
    bench.interrupt();
    bench.play();
    assert_eq!(bench.ending(), (&Ending::Failed(fault), 1, None));
    assert_eq!(bench.works.len(), works);
}

#[test]
fn replies_that_nobody_asked_for_are_our_failure() {
    let stepped = || RankReply::Stepped(Box::new(outcome()));
    let mut bench = Bench::begun();
    bench.play_until("step 0");
    bench.went(1, outcome());
    // Nor is there an outcome before the device has the step.
    let refused = bench.try_tell(SupervisorMessage::Rank(0, stepped())).unwrap_err();
    assert!(refused.what.contains("rank 0 replied Stepped"), "{refused}");
    for (rank, reply) in [(1, stepped()), (0, RankReply::Restored), (0, RankReply::Evaluated)] {
        let refused = bench.try_tell(SupervisorMessage::Rank(rank, reply)).unwrap_err();
        assert_eq!((refused.actor, refused.blame), (ActorName::Supervisor, Blame::Ours));
    }
}

#[test]
fn a_run_with_no_steps_left_ends_where_it_stands() {
    let mut bench = Bench::new(schedule());
    bench.start(4, Some("on disk"));
    bench.play();
    assert_eq!(bench.works, ["restore 0"]);
    assert_eq!(bench.ending(), (&Ending::Finished, 4, Some("on disk")));
    // More steps than the schedule now has.
    let mut bench = Bench::new(schedule());
    bench.start(9, Some("on disk"));
    bench.play();
    assert_eq!(bench.ending(), (&Ending::Finished, 9, Some("on disk")));
    // The last state is only in memory: its engine died while it was written.
    let mut bench = Bench::new(schedule());
    bench.start(4, None);
    bench.play();
    assert_eq!(bench.works[1..], ["snapshot", "save 4 after None"]);
    assert_eq!(bench.ending(), (&Ending::Finished, 4, Some("digest 4")));
}
