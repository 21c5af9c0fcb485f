//! What follows the failure of an engine: another one, unless it would be no use.

use std::time::{Duration, Instant};

use crate::cli::parent::{Failures, LastWord, Next, RESTART_WINDOW};

fn word(step: u64, what: &str) -> Option<LastWord> {
    Some(LastWord { step, what: what.to_string(), lasting: false })
}

#[test]
fn the_same_failure_at_the_same_step_is_not_tried_a_third_time() {
    let now = Instant::now();
    let mut failures = Failures::default();
    assert_eq!(failures.add(now, "code 75", word(7, "a damaged shard")), Next::Again);
    // A loader may be a step ahead, or not.
    let Next::GiveUp(why) = failures.add(now, "code 75", word(8, "a damaged shard")) else {
        panic!("it goes on");
    };
    assert!(why.contains("the same failure twice") && why.contains("a damaged shard"), "{why}");
    // Another failure, a run that came further, an engine that was killed in between: chance.
    for (first, second) in [
        (word(7, "a"), word(7, "b")),
        (word(7, "a"), word(10, "a")),
        (None, None),
        (word(7, "a"), None),
    ] {
        let mut failures = Failures::default();
        assert_eq!(failures.add(now, "code 75", first), Next::Again);
        assert_eq!(failures.add(now, "code 75", second), Next::Again);
    }
}

#[test]
fn a_decision_of_the_run_is_final() {
    let lasting = Some(LastWord { lasting: true, ..word(3, "spent").unwrap() });
    assert_eq!(Failures::default().add(Instant::now(), "code 75", lasting), Next::End);
}

#[test]
fn failures_by_chance_have_a_budget_within_an_hour() {
    let now = Instant::now();
    let mut failures = Failures::default();
    for _ in 0..3 {
        assert_eq!(failures.add(now, "signal 9", None), Next::Again);
    }
    let late = now + RESTART_WINDOW + Duration::from_secs(1);
    assert_eq!(failures.add(late, "signal 9", None), Next::Again, "an hour is over");
    for _ in 0..2 {
        assert_eq!(failures.add(late, "signal 9", None), Next::Again);
    }
    let Next::GiveUp(why) = failures.add(late, "signal 9", None) else { panic!("it goes on") };
    assert!(why.contains("4 times within an hour: signal 9"), "{why}");
}
