//! The agenda: what is due when.

use crate::contract::{EvaluationTask, ProgramId, Reading};
use crate::schedule::{Schedule, Work};

const SCHEDULE: Schedule = Schedule {
    steps: 10,
    evaluate_every: 4,
    checkpoint_every: 3,
    memory_every: 0,
    drive_every: 5,
    depth: 1,
};

fn tasks(count: usize) -> Vec<EvaluationTask> {
    let task = EvaluationTask {
        name: "task".to_string(),
        program: ProgramId(0),
        parts: 1,
        every: None,
        sums: vec![],
        reading: Reading::mean(),
    };
    vec![task; count]
}

#[test]
fn a_task_may_come_at_its_own_pace() {
    let mut tasks = tasks(3);
    (tasks[1].every, tasks[2].every) = (Some(3), Some(0));
    let due = |done| {
        let works = SCHEDULE.after(done, &tasks).into_iter();
        let tasks = works.filter_map(|work| match work {
            Work::Evaluate { task, .. } => Some(task),
            _ => None,
        });
        tasks.collect::<Vec<_>>()
    };
    let by_step = (1..=10).map(due).collect::<Vec<_>>();
    let expected: [&[usize]; 10] = [&[], &[], &[1], &[0], &[], &[1], &[], &[0], &[1], &[0, 1]];
    assert_eq!(by_step, expected);
}

#[test]
fn each_kind_comes_when_it_is_due_and_all_at_the_end() {
    assert_eq!(SCHEDULE.after(1, &tasks(2)), []);
    assert_eq!(SCHEDULE.after(3, &tasks(2)), [Work::Save { step: 3 }]);
    let evaluations = [0, 1].map(|task| Work::Evaluate { task, step: 4 });
    assert_eq!(SCHEDULE.after(4, &tasks(2)), evaluations);
    assert_eq!(SCHEDULE.after(5, &tasks(2)), [Work::Drive { step: 5 }]);
    let last =
        [Work::Evaluate { task: 0, step: 10 }, Work::Drive { step: 10 }, Work::Save { step: 10 }];
    assert_eq!(SCHEDULE.after(10, &tasks(1)), last);
    assert_eq!(SCHEDULE.after(4, &tasks(0)), []);
}

#[test]
fn evaluations_come_before_the_conversation_and_the_snapshot_is_last() {
    let every = Schedule {
        steps: 10,
        evaluate_every: 1,
        checkpoint_every: 1,
        memory_every: 0,
        drive_every: 1,
        depth: 1,
    };
    let kinds = |done| {
        let kind = |work: &Work| match work {
            Work::Step { .. } => panic!("steps are not due after a step"),
            Work::Evaluate { .. } => 'e',
            Work::Drive { .. } => 'd',
            Work::Save { .. } => 's',
            Work::Snapshot { .. } => 'm',
        };
        every.after(done, &tasks(3)).iter().map(kind).collect::<String>()
    };
    assert!((1..=10).all(|done| kinds(done) == "eeeds"));
    assert_eq!(kinds(0), "", "nothing is due before the first step");
}

#[test]
fn zero_means_never_but_the_last_snapshot_is_always_taken() {
    let never = Schedule {
        steps: 3,
        evaluate_every: 0,
        checkpoint_every: 0,
        memory_every: 0,
        drive_every: 0,
        depth: 1,
    };
    assert!((0..3).all(|done| never.after(done, &tasks(5)).is_empty()));
    assert_eq!(never.after(3, &tasks(5)), [Work::Save { step: 3 }]);
    // Every step of a run is saved at most once, whatever the period.
    for checkpoint_every in 0..12 {
        let schedule = Schedule { checkpoint_every, ..SCHEDULE };
        let saves = |done| {
            let works = schedule.after(done, &tasks(2));
            works.iter().filter(|w| matches!(w, Work::Save { .. })).count()
        };
        assert!((1..=10).all(|done| saves(done) <= 1) && saves(10) == 1);
    }
}

#[test]
fn snapshots_in_memory_lie_between_those_on_disk() {
    let schedule = Schedule { memory_every: 2, checkpoint_every: 4, ..SCHEDULE };
    let kept = |done| {
        schedule.after(done, &tasks(0)).into_iter().find(|w| !matches!(w, Work::Drive { .. }))
    };
    assert_eq!(kept(2), Some(Work::Snapshot { step: 2 }));
    assert_eq!(kept(3), None);
    assert_eq!(kept(4), Some(Work::Save { step: 4 }));
    assert_eq!(kept(6), Some(Work::Snapshot { step: 6 }));
    assert_eq!(kept(10), Some(Work::Save { step: 10 }));
    for done in 0..=10 {
        let taken = |step: &u64| kept(*step).is_some();
        let last = (1..=done).rev().find(taken).unwrap_or(0);
        let wanted = if done == 10 { 10 } else { last };
        assert_eq!(schedule.snapshot_at_or_before(done), wanted, "{done}");
    }
    assert_eq!(Schedule { checkpoint_every: 0, ..SCHEDULE }.snapshot_at_or_before(9), 0);
}
