//! Bad updates: rolled back, their data passed over, alike on any ranks and through kills; and
//! stopped with a saved state when roll-backs are spent.

use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Home, Random, RunResult, checkpoints, log_lines, reference, send};

/// So close to the noise of a loss that some updates of every run are bad.
const TOUCHY: [&str; 7] = [
    "recovery.bad_updates=1",
    // Hardly anything is learned, so that losses differ by chance alone.
    "schedule.learning_rate=1e-7",
    "schedule.minimum=1e-8",
    "recovery.loss_z=1.2",
    "recovery.window=6",
    "recovery.rollbacks=64",
    "checkpoint.memory_every=2",
];

fn with(more: &[&'static str]) -> Vec<&'static str> {
    [&TOUCHY, more].concat()
}

/// Roll-backs in the log, but for the state that was loaded, which is whatever was there.
fn roll_backs(home: &Home, run: &str) -> Vec<Value> {
    let lines = log_lines(&home.path(run)).into_iter();
    let mut lines: Vec<Value> = lines.filter(|line| line["kind"] == "rollback").collect();
    for line in &mut lines {
        line.as_object_mut().unwrap().remove("loaded");
    }
    // Decided again after a kill: the same one.
    lines.sort_by_key(|line| line["number"].as_u64());
    lines.dedup();
    lines
}

#[test]
fn a_roll_back_is_the_same_on_any_ranks_and_through_kills() {
    let home = Home::new();
    let one = home.train("runs/one", &with(&[]));
    let back = roll_backs(&home, "runs/one");
    assert!((2..30).contains(&back.len()), "{back:?}");
    for line in &back {
        let number = |key: &str| line[key].as_u64().unwrap();
        assert!(number("step") < number("at") && number("batches") > 0, "{line}");
        assert!(line["reason"].as_str().unwrap().contains("z-score"), "{line}");
    }
    let summary = std::fs::read_to_string(home.path("runs/one/summary.json")).unwrap();
    assert!(summary.contains(&format!("\"rollbacks\": {}", back.len())), "{summary}");
    for (run, ranks) in [("runs/two", "run.ranks=2"), ("runs/four", "run.ranks=4")] {
        assert_eq!(home.train(run, &with(&[ranks])), one, "{ranks}");
        assert_eq!(roll_backs(&home, run), back, "{ranks}");
    }
    let mut random = Random(3);
    let mut step = 0;
    while step < 24 {
        step += 1 + random.below(7);
        let mut run = home.start("runs/killed", &with(&["run.ranks=2"]));
        if !run.until_step(step) {
            break;
        }
        sleep(Duration::from_micros(random.below(12_000)));
        run.kill();
    }
    assert_eq!(home.train("runs/killed", &with(&["run.ranks=4"])), one);
    let seen = roll_backs(&home, "runs/killed");
    assert!(seen.iter().all(|line| back.contains(line)), "{seen:?} and {back:?}");
}

#[test]
fn a_run_whose_roll_backs_are_spent_stops_saved_and_goes_on_with_more() {
    let home = Home::new();
    let whole = home.train("runs/whole", &with(&[]));
    let end = home.start("runs/spent", &with(&["recovery.rollbacks=1"])).wait();
    assert_eq!(end.code(), Some(2), "{end:?}");
    let told = end.stderr.contains("1 roll-backs are spent, so the run stops, saved at step ");
    assert!(told && end.stderr.contains("recovery.rollbacks"), "{}", end.stderr);
    assert!(!end.stderr.contains("starting it again"), "{}", end.stderr);
    let saved = checkpoints(&home.path("runs/spent")).pop().expect("it is saved");
    let step = saved.file_name().unwrap().to_str().unwrap().strip_prefix("step-").unwrap();
    let step: u64 = step.parse().unwrap();
    assert!(end.stderr.contains(&format!("saved at step {step}: ")), "{}", end.stderr);
    // The same command comes to the same end; with a larger budget the run goes on as if it had
    // had it from the start.
    let again = home.start("runs/spent", &with(&["recovery.rollbacks=1"])).wait();
    assert_eq!(again.code(), Some(2), "{again:?}");
    assert_eq!(home.train("runs/spent", &with(&[])), whole);
}

#[test]
fn an_engine_that_dies_goes_on_from_memory() {
    let home = Home::new();
    let sets = ["checkpoint.every=0", "checkpoint.memory_every=1", "run.ranks=2"];
    let mut run = home.start("runs/memory", &sets);
    assert!(run.until_step(9) && run.until(|run| run.engine().is_some()));
    let engine = run.engine().unwrap();
    send(engine, libc::SIGKILL);
    assert!(run.until(|run| run.engine().is_some_and(|other| other != engine)));
    assert!(checkpoints(run.folder()).is_empty(), "nothing was on disk");
    let end = run.wait();
    assert!(end.success(), "{end:?}");
    let folder = home.path("runs/memory");
    assert_eq!(&RunResult::of(&folder), reference());
    // It came back beyond step 6: two slots, and the newest was at most one step behind.
    let notes = log_lines(&folder);
    let resumed = notes.iter().find_map(|line| {
        let what = line["what"].as_str()?;
        let again = what.contains("the engine was started again");
        again.then(|| line["step"].as_u64().unwrap())
    });
    assert!(resumed.expect("it is logged") > 6, "{resumed:?}");
}
