//! SIGKILL at any moment: the run goes on with the same bits, on any number of ranks.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::harness::{Home, Random, RunResult, STEPS, notes, reference, send};

const RANKS: [&str; 4] = ["run.ranks=1", "run.ranks=4", "run.ranks=2", "run.ranks=8"];

#[test]
fn a_run_killed_at_many_steps_ends_with_the_same_bits() {
    for seed in 1..=3 {
        let home = Home::new();
        let mut random = Random(seed);
        let mut step = 0;
        let mut kills = 0;
        while step < STEPS - 6 {
            // Beyond the last checkpoint, so that every leg comes further, and between two steps.
            step += 1 + random.below(8);
            let ranks = RANKS[random.below(4) as usize];
            let mut run = home.start("runs/killed", &[ranks, "run.zero=1"]);
            assert!(run.until_step(step), "it ended before step {step}");
            sleep(Duration::from_micros(random.below(12_000)));
            run.kill();
            kills += 1;
        }
        assert!(kills >= 3, "{kills} kills");
        assert_eq!(&home.train("runs/killed", &["run.ranks=2"]), reference(), "seed {seed}");
    }
}

#[test]
fn a_run_killed_at_any_time_from_its_start_ends_with_the_same_bits() {
    let home = Home::new();
    let mut random = Random(11);
    for attempt in 0..12 {
        let run = home.start("runs/killed", &[RANKS[attempt % 3], "run.zero=0"]);
        sleep(Duration::from_millis(random.below(400)));
        run.kill();
    }
    assert_eq!(&home.train("runs/killed", &[]), reference());
}

#[test]
fn a_killed_run_goes_on_without_its_text() {
    let home = Home::new();
    let mut run = home.start("runs/textless", &[]);
    assert!(run.until_step(7), "it ended too early");
    run.kill();
    fs::rename(home.path("text.txt"), home.path("elsewhere.txt")).unwrap();
    // Another text that is not there is no reason to go on with this one.
    let end = home.start("runs/textless", &["data.text=other.txt"]).wait();
    assert_eq!(end.code(), Some(2), "{end:?}");
    assert!(end.stderr.contains("data.text: other.txt does not exist"), "{end:?}");
    assert_eq!(&home.train("runs/textless", &[]), reference());
    let said = "data.text: text.txt does not exist: goes on with what was prepared of it before";
    let notes = notes(&home.path("runs/textless"));
    assert!(notes.iter().any(|note| note == said), "{notes:?}");
    // Nor does a run begin with what another one has prepared.
    let end = home.start("runs/new", &[]).wait();
    assert_eq!(end.code(), Some(2), "{end:?}");
}

#[test]
fn an_engine_that_is_killed_is_started_again() {
    let home = Home::new();
    let mut random = Random(5);
    // Many more steps than the kills need, so that none comes after the end on a busy machine.
    let long = "run.steps=150";
    let undisturbed = home.train("runs/undisturbed", &[long]);
    let mut run = home.start("runs/engine", &["run.ranks=2", long]);
    let mut step = 0;
    for _ in 0..3 {
        step += 3 + random.below(3);
        assert!(run.until_step(step), "it ended before step {step}");
        assert!(run.until(|run| run.engine().is_some()), "it ended: {:?}", run.said());
        send(run.engine().unwrap(), libc::SIGKILL);
        assert!(run.until(|run| run.engine().is_none()), "it ended with its engine");
    }
    let end = run.wait();
    assert!(end.success(), "{end:?}");
    let restarts = end.stderr.matches("the engine died of signal 9; starting it again").count();
    assert_eq!(restarts, 3, "{}", end.stderr);
    let folder = home.path("runs/engine");
    assert_eq!(RunResult::of(&folder), undisturbed);
    let notes = notes(&folder);
    assert!(notes.iter().any(|note| note.contains("2 ranks")));
    let restarted = "the engine was started again: the engine died of signal 9";
    assert!(notes.iter().any(|note| note == restarted), "{notes:?}");
}

#[test]
fn fewer_snapshots_and_deeper_queues_change_no_bit_and_restarts_go_on() {
    let home = Home::new();
    for setting in ["run.snapshots=0", "run.snapshots=1", "run.depth=2"] {
        let name = format!("runs/{setting}");
        let mut run = home.start(&name, &["run.ranks=2", setting, "checkpoint.memory_every=1"]);
        assert!(run.until_step(8) && run.until(|run| run.engine().is_some()), "it ended too early");
        send(run.engine().unwrap(), libc::SIGKILL);
        let end = run.wait();
        assert!(end.success() && end.stderr.contains("starting it again"), "{end:?}");
        let folder = home.path(&name);
        assert_eq!(&RunResult::of(&folder), reference(), "{setting}");
        assert!(!folder.join(".snapshot").exists(), "what passed through it has a name no more");
    }
    for (set, wanted) in [
        ("run.snapshots=3", "run.snapshots: expected 0, 1 or 2"),
        ("run.depth=0", "run.depth: expected 1 or 2"),
    ] {
        let refused = home.start("runs/three", &[set]).wait();
        assert_eq!(refused.code(), Some(2), "{refused:?}");
        assert!(refused.stderr.contains(wanted), "{refused:?}");
    }
}

#[test]
fn an_engine_that_always_dies_is_given_up_and_nothing_is_lost() {
    let home = Home::new();
    // Nothing is saved before the end, so that no engine begins later than the one before.
    let mut run = home.start("runs/engine", &["checkpoint.every=0"]);
    for _ in 0..4 {
        assert!(run.until(|run| run.engine().is_some()), "it ended too early");
        let engine = run.engine().unwrap();
        assert!(run.until_step(6), "it ended too early");
        send(engine, libc::SIGKILL);
        run.until(|run| run.engine() != Some(engine));
    }
    let end = run.wait();
    assert_eq!(end.code(), Some(75), "{end:?}");
    assert!(
        end.stderr.contains("the engine failed 4 times from the same state, that of step "),
        "{end:?}"
    );
    assert_eq!(&home.train("runs/engine", &["run.ranks=4"]), reference());
}

#[test]
fn what_changes_outside_while_a_run_goes_on_does_not_reach_its_next_engine() {
    let home = Home::new();
    let mut run = home.start("runs/engine", &["run.ranks=2"]);
    assert!(run.until_step(4) && run.until(|run| run.engine().is_some()), "it ended too early");
    // Somebody prepares their next run.
    fs::write(home.path("run.toml"), "[run]\nsteps = \"soon\"\n").unwrap();
    fs::write(home.path("text.txt"), "Another text. ".repeat(2_000)).unwrap();
    send(run.engine().unwrap(), libc::SIGKILL);
    let end = run.wait();
    assert!(end.success(), "{end:?}");
    assert!(end.stderr.contains("starting it again"), "{end:?}");
    assert_eq!(&RunResult::of(&home.path("runs/engine")), reference());
}

#[test]
fn an_engine_that_dies_again_and_again_goes_on_while_it_comes_further() {
    let home = Home::new();
    let mut run = home.start("runs/engine", &["checkpoint.every=1", "run.steps=60"]);
    let mut step = 0;
    for _ in 0..7 {
        step += 4;
        assert!(
            run.until_step(step) && run.until(|run| run.engine().is_some()),
            "{:?}",
            run.said()
        );
        let engine = run.engine().unwrap();
        send(engine, libc::SIGKILL);
        assert!(run.until(|run| run.engine() != Some(engine)), "{:?}", run.said());
    }
    let end = run.wait();
    assert!(end.success(), "{end:?}");
    assert_eq!(end.stderr.matches("starting it again").count(), 7, "{}", end.stderr);
}
