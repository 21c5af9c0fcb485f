//! Steps that grow: the same bits on any ranks and after a stop inside the ramp, samples one after
//! the other, tokens as they were trained.

use std::fs;

use serde_json::Value;

use crate::harness::{Home, RunResult, STEPS, log_lines};

const RAMP: [&str; 4] =
    ["batch.micro=1", "batch.lanes=4", "batch.ramp=[[4, 4], [9, 8]]", "evaluate.every=0"];
const LENGTH: u64 = 32;

fn train(home: &Home, name: &str, sets: &[&str]) -> RunResult {
    home.train(name, &[&RAMP[..], sets].concat())
}

#[test]
fn a_ramp_gives_one_digest_on_any_ranks_and_after_a_stop() {
    let home = Home::new();
    let wanted = train(&home, "runs/one", &[]);
    for (name, ranks, zero) in [("runs/two", 2, 1), ("runs/four", 4, 1), ("runs/flat", 4, 0)] {
        let sets = [format!("run.ranks={ranks}"), format!("run.zero={zero}")];
        assert_eq!(train(&home, name, &[&sets[0], &sets[1]]), wanted, "{sets:?}");
    }
    // Steps 0 to 5: it stops between the two sizes of the ramp, and goes on upon other ranks.
    let horizon = format!("schedule.steps={STEPS}");
    train(&home, "runs/stopped", &["run.steps=6", "run.ranks=2", &horizon]);
    assert_eq!(train(&home, "runs/stopped", &["run.ranks=4", &horizon]), wanted);
    // The first stretch is what a run of small steps does: its samples, its loss scale.
    let small = home.train("runs/small", &["batch.micro=1", "batch.global=4", "evaluate.every=0"]);
    assert_eq!(small.lines[..4], wanted.lines[..4]);
    assert_ne!(small.lines[4], wanted.lines[4]);
}

#[test]
fn tokens_and_cursor_follow_the_ramp() {
    let home = Home::new();
    train(&home, "runs/one", &[]);
    let folder = home.path("runs/one");
    let lines = log_lines(&folder);
    let mut samples = 0;
    let mut steps = 0;
    for line in lines.iter().filter(|line| line["kind"] == "step") {
        samples += match steps {
            0..4 => 4,
            4..9 => 8,
            _ => 16,
        };
        steps += 1;
        assert_eq!((&line["step"], &line["tokens"]), (&steps.into(), &(samples * LENGTH).into()));
    }
    assert_eq!(steps, STEPS);
    let read = |path: &str| -> Value {
        serde_json::from_slice(&fs::read(folder.join(path)).unwrap()).unwrap()
    };
    assert_eq!(read("summary.json")["tokens"], samples * LENGTH);
    let last = &read("checkpoints/step-00000030/manifest.json")["cursor"];
    assert_eq!(last["samples"], samples);
}

#[test]
fn tokens_are_those_of_the_batches_that_were_learned_from() {
    let home = Home::new();
    // Hardly anything is learned, so that some losses stand out by chance, and data is passed over
    // while the ramp goes on.
    let touchy = [
        "recovery.bad_updates=1",
        "recovery.loss_z=1.2",
        "recovery.window=3",
        "recovery.rollbacks=64",
        "checkpoint.memory_every=1",
        "schedule.learning_rate=1e-7",
        "schedule.minimum=1e-8",
        "batch.ramp=[[8, 4], [16, 8]]",
    ];
    let one = train(&home, "runs/one", &touchy);
    assert_eq!(train(&home, "runs/two", &[&touchy[..], &["run.ranks=2"]].concat()), one);
    let mut tokens = 0;
    let mut others = 0;
    let lines = log_lines(&home.path("runs/one"));
    for line in lines.iter().filter(|line| line["kind"] == "step") {
        let step = line["step"].as_u64().unwrap() - 1;
        let batch = line["batch"].as_u64().unwrap_or(step);
        let size = |batch: u64| {
            if batch < 8 {
                4
            } else if batch < 16 {
                8
            } else {
                16
            }
        };
        others += u64::from(size(batch) != size(step));
        tokens += size(batch) * LENGTH;
        assert_eq!(line["tokens"], tokens, "{line}");
    }
    assert!(others > 0, "no step had another size than its own");
    let manifest = home.path("runs/one/checkpoints/step-00000030/manifest.json");
    let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    assert_eq!(manifest["cursor"]["tokens"], tokens);
}
