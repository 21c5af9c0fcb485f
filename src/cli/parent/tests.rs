//! What follows the failure of an engine: another one, unless it would be no use.

use std::path::Path;

use crate::cli::parent::memory_kills::{count, files};
use crate::cli::parent::{Failures, LastWord, Next, RESTARTS};

fn word(step: u64, what: &str) -> Option<LastWord> {
    Some(LastWord { step, what: what.to_string(), lasting: false })
}

#[test]
fn the_same_failure_at_the_same_step_is_not_tried_a_third_time() {
    let mut failures = Failures::default();
    assert_eq!(failures.add(Some(5), "code 75", word(7, "a damaged shard")), Next::Again);
    // A loader may be a step ahead, or not.
    let Next::GiveUp(why) = failures.add(Some(5), "code 75", word(8, "a damaged shard")) else {
        panic!("it goes on");
    };
    assert!(why.contains("the same failure twice") && why.contains("a damaged shard"), "{why}");
    // Another failure, a run that came further, an engine that was killed in between: chance.
    for (first, second) in [
        (word(7, "a"), word(7, "b")),
        (word(7, "a"), word(11, "a")),
        (None, None),
        (word(7, "a"), None),
    ] {
        let mut failures = Failures::default();
        assert_eq!(failures.add(Some(5), "code 75", first), Next::Again);
        assert_eq!(failures.add(Some(5), "code 75", second), Next::Again);
    }
}

#[test]
fn a_decision_of_the_run_is_final() {
    let lasting = Some(LastWord { lasting: true, ..word(3, "spent").unwrap() });
    assert_eq!(Failures::default().add(None, "code 75", lasting), Next::End);
}

#[test]
fn failures_from_one_state_have_a_budget_however_long_they_take() {
    let mut failures = Failures::default();
    // It came further by chance, and nothing of it was kept.
    for begun in [Some(100), None, Some(100)] {
        assert_eq!(failures.add(begun, "signal 9", None), Next::Again);
    }
    let Next::GiveUp(why) = failures.add(Some(100), "signal 9", None) else {
        panic!("it goes on");
    };
    assert!(why.ends_with("4 times from the same state, that of step 100: signal 9"), "{why}");
    let mut failures = Failures::default();
    for _ in 0..RESTARTS {
        assert_eq!(failures.add(None, "signal 9", None), Next::Again);
    }
    let Next::GiveUp(why) = failures.add(None, "signal 9", None) else { panic!("it goes on") };
    assert!(why.contains("4 times before its first step"), "{why}");
}

#[test]
fn a_run_that_comes_further_goes_on_for_ever() {
    let mut failures = Failures::default();
    for state in 0..50 {
        for _ in 0..RESTARTS {
            let next = failures.add(Some(10 * state), "signal 9", None);
            assert_eq!(next, Next::Again, "at state {state}");
        }
    }
    // After a roll-back it goes on from further back, and comes further from there.
    let mut failures = Failures::default();
    for begun in [400, 300, 310, 310, 310].map(Some) {
        assert_eq!(failures.add(begun, "signal 9", None), Next::Again);
    }
    assert!(matches!(failures.add(Some(310), "signal 9", None), Next::GiveUp(_)));
}

#[test]
fn kills_for_want_of_memory_are_counted_where_the_system_counts_them() {
    assert_eq!(count("low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
    assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"), Some(5));
    assert_eq!(count("nr_free_pages 12\n"), None);
    let second = files("0::/user.slice/run.scope\n");
    assert_eq!(second[0], Path::new("/sys/fs/cgroup/user.slice/run.scope/memory.events"));
    let first = files("5:devices:/\n4:memory:/job/7\n0::/\n");
    let wanted = Path::new("/sys/fs/cgroup/memory/job/7/memory.oom_control");
    assert!(first.iter().any(|file| file == wanted), "{first:?}");
    assert_eq!(first.last().unwrap(), Path::new("/proc/vmstat"));
}
