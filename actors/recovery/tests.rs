//! Decisions about bad updates, fed with numbers.

use crate::recovery::{Policy, Recovery, RollBack, Update, Verdict};
use crate::schedule::Schedule;

const POLICY: Policy =
    Policy { bad_updates: 3, rollbacks: 2, skip_data: true, window: 4, loss_z: 6.0, norm_z: 6.0 };

const SCHEDULE: Schedule = Schedule {
    steps: 100,
    evaluate_every: 0,
    checkpoint_every: 10,
    memory_every: 4,
    drive_every: 0,
    depth: 1,
};

fn good(step: u64) -> Update {
    let loss = 2.0 + 0.01 * (step % 3) as f64;
    Update { step, loss, norm: 1.0 + 0.1 * (step % 2) as f64, skipped: false }
}

fn bad(step: u64) -> Update {
    Update { norm: f64::NAN, skipped: true, ..good(step) }
}

fn judge(recovery: &mut Recovery, update: Update) -> Verdict {
    recovery.judge(&POLICY, &SCHEDULE, &update)
}

fn after(steps: u64) -> Recovery {
    let mut recovery = Recovery::default();
    assert!((0..steps).all(|step| judge(&mut recovery, good(step)) == Verdict::Good));
    recovery
}

fn roll_back(recovery: &mut Recovery, steps: std::ops::Range<u64>) -> RollBack {
    let last = steps.end - 1;
    for step in steps {
        match judge(recovery, bad(step)) {
            Verdict::RollBack(back) if step == last => return back,
            Verdict::Bad(_) if step < last => {}
            other => panic!("step {step}: {other:?}"),
        }
    }
    unreachable!("the last step rolls back")
}

#[test]
fn bad_updates_count_only_in_a_row() {
    let mut recovery = after(5);
    for step in [5, 8, 11] {
        assert!(matches!(judge(&mut recovery, bad(step)), Verdict::Bad(_)));
        assert!(matches!(judge(&mut recovery, bad(step + 1)), Verdict::Bad(_)));
        assert_eq!(judge(&mut recovery, good(step + 2)), Verdict::Good);
        assert_eq!(recovery.bad(), 0);
    }
}

#[test]
fn a_roll_back_goes_to_the_snapshot_before_the_first_bad_one_and_passes_the_data_over() {
    for (first, to) in [(6, 4), (8, 8), (10, 10), (11, 10), (3, 0), (13, 12)] {
        let mut recovery = after(first);
        let back = roll_back(&mut recovery, first..first + 3);
        assert_eq!((back.to, back.at, back.number()), (to, first + 3, 1), "first bad {first}");
        assert_eq!(back.passed_over, (to, first + 3 - to));
        assert!(back.goes_on);
        let mut then = after(to);
        then.adopt(&back);
        // Steps before it learn again from what they had; the others from what nobody has seen.
        assert!((0..to).all(|step| then.batch(step) == step));
        assert_eq!(then.batch(to), first + 3);
        assert_eq!(then.batch(to + 7), first + 10);
    }
}

#[test]
fn without_passing_over_the_same_data_comes_again() {
    let policy = Policy { skip_data: false, ..POLICY };
    let mut recovery = after(5);
    let verdicts: Vec<_> =
        (5..8).map(|step| recovery.judge(&policy, &SCHEDULE, &bad(step))).collect();
    let Some(Verdict::RollBack(back)) = verdicts.last() else { panic!("{verdicts:?}") };
    recovery.adopt(back);
    assert_eq!((back.to, back.passed_over), (4, (4, 0)));
    assert!((0..20).all(|step| recovery.batch(step) == step));
}

#[test]
fn roll_backs_add_up_and_have_a_budget() {
    let mut recovery = after(9);
    let one = roll_back(&mut recovery, 9..12);
    let mut recovery = after(8);
    recovery.adopt(&one);
    // The same place once more: the data goes on where it was given up.
    let two = roll_back(&mut recovery, 8..11);
    assert_eq!((one.passed_over, two.passed_over), ((8, 4), (8, 7)));
    let mut recovery = after(8);
    recovery.adopt(&two);
    assert_eq!(recovery.batch(8), 15);
    assert!(two.goes_on);
    for step in 8..22 {
        assert_eq!(judge(&mut recovery, good(step)), Verdict::Good);
    }
    let three = roll_back(&mut recovery, 22..25);
    assert_eq!((three.to, three.number()), (20, 3));
    assert!(!three.goes_on, "two are allowed");
    assert_eq!(three.passed_over, (27, 5));
    // A schedule that now has fewer snapshots leads back beyond an earlier roll-back.
    let rare = Schedule { memory_every: 0, checkpoint_every: 50, ..SCHEDULE };
    let mut verdict = Verdict::Good;
    let mut recovery = after(8);
    recovery.adopt(&two);
    for step in 8..11 {
        verdict = recovery.judge(&POLICY, &rare, &bad(step));
    }
    let Verdict::RollBack(back) = verdict else { panic!("{verdict:?}") };
    assert_eq!((back.to, back.passed_over), (0, (0, 18)));
}

#[test]
fn spikes_stand_out_among_good_updates_only() {
    let spike = |loss: f64, norm: f64| Update { loss, norm, ..good(9) };
    for (update, name) in [(spike(2.5, 1.0), "loss"), (spike(2.0, 3.0), "gradient norm")] {
        let mut recovery = after(9);
        let Verdict::Bad(what) = judge(&mut recovery, update) else { panic!("{name}") };
        assert!(what.contains(&format!("the {name} of")), "{what}");
        // Until the window is full, and without a threshold, nothing is a spike.
        assert_eq!(judge(&mut after(3), update), Verdict::Good);
        let policy = Policy { loss_z: 0.0, norm_z: 0.0, ..POLICY };
        assert_eq!(after(9).judge(&policy, &SCHEDULE, &update), Verdict::Good);
    }
    // A fall is none, and a bad update does not raise what the next is compared with.
    assert_eq!(judge(&mut after(9), spike(0.5, 0.01)), Verdict::Good);
    let mut recovery = after(9);
    for _ in 0..2 {
        assert!(matches!(judge(&mut recovery, spike(5.0, 1.0)), Verdict::Bad(_)));
    }
    let Verdict::RollBack(back) = judge(&mut recovery, spike(5.0, 1.0)) else { panic!() };
    assert!(back.reason.contains("z-score"), "{}", back.reason);
    // Equal losses have no spread of their own.
    let mut flat = Recovery::default();
    for step in 0..9 {
        flat.judge(&POLICY, &SCHEDULE, &Update { loss: 2.0, norm: 1.0, ..good(step) });
    }
    assert_eq!(judge(&mut flat, spike(2.000_001, 1.0)), Verdict::Good);
}

#[test]
fn a_loss_that_is_not_finite_is_bad_even_if_its_gradient_is() {
    let update = Update { loss: f64::INFINITY, ..good(9) };
    assert!(matches!(judge(&mut after(9), update), Verdict::Bad(_)));
}

#[test]
fn what_is_saved_decides_alike() {
    let mut recovery = after(9);
    let one = roll_back(&mut recovery, 9..12);
    let mut recovery = after(8);
    recovery.adopt(&one);
    judge(&mut recovery, bad(8));
    let again = Recovery::from_value(&recovery.to_value()).unwrap();
    assert_eq!(again, recovery);
    assert_eq!(Recovery::from_value(&serde_json::Value::Null).unwrap(), Recovery::default());
    let damaged = serde_json::json!({ "losses": "no number" });
    assert!(Recovery::from_value(&damaged).unwrap_err().contains("recovery"));
}

#[test]
fn what_is_next_to_nothing_makes_no_spike() {
    // As a model that knows its text by heart reports: a loss of 2e-8 after some of 1e-9.
    let mut recovery = Recovery::default();
    let by_heart = |step: u64, times: f64| {
        let wave = 1.0 + 0.1 * (step % 3) as f64;
        Update { step, loss: 1e-9 * wave * times, norm: 1e-7 * wave * times, skipped: false }
    };
    for step in 0..8 {
        assert_eq!(judge(&mut recovery, by_heart(step, 1.0)), Verdict::Good);
    }
    assert_eq!(judge(&mut recovery, by_heart(8, 20.0)), Verdict::Good);
    // What is more than nothing still stands out.
    let spike = Update { loss: 0.01, ..by_heart(9, 1.0) };
    assert!(matches!(judge(&mut recovery, spike), Verdict::Bad(_)));
}
