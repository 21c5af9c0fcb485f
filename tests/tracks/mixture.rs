//! Several objectives in one run, at weights that change.

use octet_actors::contract::Workload;

use crate::harness::{ends, experiment, one_digest, run};

const MODEL: &str = "\
[model]
layers = 1
heads = 2
width = 32
vocabulary = 16
init_std = 0.1
[model.parts.bert]
family = \"encoder\"
layers = 1
heads = 2
width = 16
";

fn track(name: &str, rest: &str) -> String {
    format!("[[tracks]]\nname = \"{name}\"\n{rest}\n")
}

const MASKED: &str = "objective = { kind = \"masked\" }";

#[test]
fn three_tracks_stopped_and_resumed_on_other_ranks_are_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let lm = track("lm", "weight = [[0, 1.0], [20, 0.5]]");
    // Both read the same model.
    let hidden = track("hidden", &format!("weight = 0.5\n{MASKED}"));
    let pairs = "objective = { kind = \"masked\", next_sentence = true }\nmodel = \"bert\"";
    // It comes and goes.
    let pairs =
        track("pairs", &format!("weight = [[9, 0.0], [10, 1.0], [29, 1.0], [30, 0.0]]\n{pairs}"));
    let tasks = "[[tasks]]\nname = \"often\"\ntrack = \"lm\"\nevery = 3\n";
    let text = format!("{MODEL}{lm}{hidden}{pairs}{tasks}");
    let mixture = experiment(folder.path(), &text);
    assert_eq!(mixture.evaluations().len(), 1);
    assert_eq!(mixture.evaluations()[0].every, Some(3));
    assert_eq!(mixture.shape(5, 0).micro_batches, 8);
    assert_eq!(mixture.shape(15, 0).micro_batches, 12);
    // Eight samples of each track in each step that it is in: 40, 40, and 20.
    assert_eq!(mixture.samples_before(40), 8 * 40 * 2 + 8 * 20);
    let trial = one_digest(&mixture);
    let (first, last) = ends(&trial, "lm");
    assert!(last < 0.8 * first, "{first} to {last}");
    let names = |step: usize| -> Vec<String> {
        trial.reports[step].losses.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(5), ["lm", "hidden"]);
    assert_eq!(names(15), ["lm", "hidden", "pairs/masked", "pairs/next_sentence"]);
    assert_eq!(trial.reports[39].tokens, 16 * mixture.samples_before(40));
}

#[test]
fn a_track_at_weight_one_beside_others_at_nothing_is_its_run_alone() {
    let folder = tempfile::tempdir().unwrap();
    let lm = track("lm", "");
    let beside = track("hidden", &format!("weight = 0\n{MASKED}"));
    let alone = run(&experiment(folder.path(), &format!("{MODEL}{lm}")));
    let both = run(&experiment(folder.path(), &format!("{MODEL}{lm}{beside}")));
    assert_eq!(alone.digest, both.digest);
    let losses = |trial: &octet_actors::testing::Trial| -> Vec<u64> {
        trial.reports.iter().map(|report| report.loss.to_bits()).collect()
    };
    assert_eq!(losses(&alone), losses(&both));
    // And what a file without tracks trains.
    let plain = run(&experiment(folder.path(), MODEL));
    assert_eq!(plain.digest, alone.digest);
}

#[test]
fn memory_is_planned_for_every_step_of_a_mixture() {
    let folder = tempfile::tempdir().unwrap();
    let lm = track("lm", "");
    let leaves = track("hidden", &format!("weight = [[0, 1.0], [10, 0.0]]\n{MASKED}"));
    let mixture = experiment(folder.path(), &format!("{MODEL}{lm}{leaves}"));
    let planned = mixture.shapes();
    assert_eq!(planned.iter().map(|shape| shape.micro_batches).collect::<Vec<_>>(), [8, 4]);
    assert!((0..20).all(|step| planned.contains(&mixture.shape(step, 0))));
}
