//! Steps that are given before the one before has said how it went.

use super::bench::{Bench, schedule};
use crate::schedule::Schedule;
use crate::supervisor::{Ending, SupervisorMessage};

fn two_at_once() -> Bench {
    Bench::new(Schedule { evaluate_every: 0, checkpoint_every: 0, depth: 2, ..schedule() })
}

/// What rank 0 was told, and which updates it was told of.
fn steps(bench: &Bench) -> (Vec<&str>, Vec<Option<u64>>) {
    let steps = bench.works.iter().filter(|work| work.starts_with("step"));
    (steps.map(String::as_str).collect(), bench.updates.clone())
}

#[test]
fn a_step_comes_before_the_outcome_of_the_one_before_and_says_so() {
    let mut bench = two_at_once();
    bench.start(0, None);
    bench.play();
    let wanted = vec!["step 0", "step 1", "step 2", "step 3"];
    assert_eq!(steps(&bench), (wanted, vec![Some(0), None, None, None]));
    assert_eq!(bench.reported(), [1, 2, 3, 4]);
    assert_eq!(bench.ending(), (&Ending::Finished, 4, Some("digest 4")));
}

#[test]
fn what_is_no_step_waits_for_all_that_are_given() {
    let mut bench = Bench::new(Schedule { depth: 2, ..schedule() });
    bench.start(0, None);
    bench.play_until("evaluate");
    assert_eq!(bench.reported(), [1, 2], "it depends on how they went");
    bench.play();
    let known: Vec<bool> = bench.updates.iter().map(Option::is_some).collect();
    assert_eq!(known, [true, false, true, false], "and steps behind it know");
    assert_eq!(bench.ending(), (&Ending::Finished, 4, Some("digest 4")));
    assert_eq!(bench.saved, [2, 4]);
}

#[test]
fn somebody_who_wants_it_saved_does_not_wait_for_the_end() {
    let mut bench = two_at_once();
    bench.start(0, None);
    bench.play_until("step 1");
    bench.tell(SupervisorMessage::Save);
    bench.play();
    assert_eq!(bench.saved, [2, 4]);
    assert_eq!(bench.ending(), (&Ending::Finished, 4, Some("digest 4")));
}

#[test]
fn a_step_behind_one_that_overflows_comes_again_behind_it() {
    let mut bench = two_at_once();
    // The first twice; the last until there are no more attempts.
    bench.overflows = vec![(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)];
    bench.start(0, None);
    bench.play();
    let wanted = [
        ("step 0", Some(0)),
        ("step 1", None),
        ("step 0 again 1", Some(0)),
        ("step 1", None),
        ("step 0 again 2", Some(0)),
        ("step 1", None),
        ("step 2", None),
        ("step 3", None),
        ("step 2 again 1", Some(2)),
        ("step 3", None),
        ("step 2 again 2", Some(2)),
        // Held behind a step that is given up, not one that is repeated.
        ("step 3", None),
        ("step 3", Some(2)),
    ];
    let (works, updates): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
    assert_eq!(steps(&bench), (works, updates));
    assert_eq!(bench.reported(), [1, 2, 3, 4]);
    assert_eq!(bench.ending(), (&Ending::Finished, 4, Some("digest 4")));
}

#[test]
fn a_step_behind_the_bad_update_that_leads_back_is_forgotten() {
    let mut bench = two_at_once();
    bench.skips = vec![1, 2];
    bench.start(0, None);
    bench.play();
    let (works, _) = steps(&bench);
    let wanted = ["step 0", "step 1", "step 2", "step 3", "step 0 on 3", "step 1 on 4"];
    assert_eq!(works[..6], wanted);
    // The third is reported, which led back; the fourth, which was in flight, never was.
    assert_eq!(bench.reported(), [1, 2, 3, 1, 2, 3, 4]);
    assert_eq!(bench.ending(), (&Ending::Finished, 4, Some("digest 4")));
}

#[test]
fn an_interrupt_waits_for_all_that_are_given() {
    let mut bench = two_at_once();
    bench.start(0, None);
    bench.play_until("step 2");
    bench.interrupt();
    bench.play();
    assert_eq!(bench.reported(), [1, 2, 3]);
    assert_eq!(bench.ending(), (&Ending::Interrupted, 3, Some("digest 3")));
}
