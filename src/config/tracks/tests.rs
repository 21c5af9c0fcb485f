//! Weights over steps, and what is said about tracks and tasks that do not fit.

use std::path::Path;

use super::{Weight, samples_before};
use crate::config::{BatchConfig, Config};

fn load(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("a.toml"), &[]).map_err(|error| error.to_string())
}

#[test]
fn weights_are_straight_lines_between_steps() {
    assert_eq!([0, 7].map(|step| Weight::Constant(0.5).at(step)), [0.5, 0.5]);
    let weight = Weight::Points(vec![(10, 1.0), (20, 0.0), (30, 0.0), (40, 2.0)]);
    let at = [0, 10, 15, 20, 25, 30, 35, 40, 99].map(|step| weight.at(step));
    assert_eq!(at, [1.0, 1.0, 0.5, 0.0, 0.0, 0.0, 1.0, 2.0, 2.0]);
}

#[test]
fn stretches_of_nothing_are_those_steps_whose_weight_is_nothing() {
    let weights = [
        Weight::Constant(0.0),
        Weight::Constant(1.0),
        Weight::Points(vec![(3, 0.0), (5, 0.0), (9, 1.0), (12, 0.0), (14, 1.0), (20, 0.0)]),
        Weight::Points(vec![(4, 0.0), (6, 1.0)]),
        Weight::Points(vec![(0, 1.0), (4, 0.0), (6, 0.0), (8, 0.0)]),
    ];
    for weight in weights {
        let zeros = weight.zeros();
        for step in 0..30 {
            let inside = zeros.iter().any(|&(from, to)| (from..to).contains(&step));
            assert_eq!(inside, weight.at(step) == 0.0, "{weight:?} at {step}: {zeros:?}");
        }
        assert!(zeros.windows(2).all(|pair| pair[0].1 < pair[1].0), "{zeros:?}");
    }
}

#[test]
fn samples_of_steps_that_are_left_out_wait() {
    let batch = BatchConfig { micro: 2, global: 8, ramp: vec![(4, 4)], ..Default::default() };
    let zeros = [(2, 5), (9, u64::MAX)];
    let by_step: Vec<u64> = (0..12).map(|step| samples_before(&zeros, &batch, step)).collect();
    // Steps before the fourth have 4 samples, the others 8.
    assert_eq!(by_step, [0, 4, 8, 8, 8, 8, 16, 24, 32, 40, 40, 40]);
}

#[test]
fn without_tracks_a_file_is_as_it_was() {
    let plain = load("[objective]\nz_loss = 1e-4\n").unwrap();
    assert_eq!(plain.tracks().len(), 1);
    assert_eq!(
        (plain.tracks()[0].name.as_str(), &plain.tracks()[0].weight),
        ("", &Weight::default())
    );
    let stored = plain.to_toml();
    assert!(!stored.contains("tracks") && !stored.contains("tasks") && !stored.contains("parts"));
    assert!(plain.identity().keys().all(|key| !key.starts_with("track")));
}

const TWO: &str = "\
[model.parts.small]
layers = 2
[[tracks]]
name = \"a\"
[[tracks]]
name = \"b\"
model = \"small\"
weight = [[0, 1.0], [100, 0.0]]
objective = { kind = \"next_token\", z_loss = 1e-4 }
[[tasks]]
name = \"often\"
track = \"b\"
every = 10
";

#[test]
fn tracks_and_tasks_are_stored_whole_and_read_again() {
    let config = load(TWO).unwrap();
    assert_eq!(config.tracks().len(), 2);
    assert_eq!(config.tracks()[1].weight.at(50), 0.5);
    assert_eq!(load(&config.to_toml()).unwrap(), config);
    let other = load(&TWO.replace("1e-4", "2e-4")).unwrap();
    assert_ne!(config.digest(), other.digest());
    let other = load(&TWO.replace("every = 10", "every = 20")).unwrap();
    assert_eq!(config.digest(), other.digest(), "measuring observes");
    let other = load(&TWO.replace("layers = 2", "layers = 3")).unwrap();
    assert_ne!(config.digest(), other.digest());
}

#[test]
fn what_does_not_fit_is_named_with_its_place() {
    let cases: &[(&str, &str, &str)] = &[
        ("name = \"b\"", "name = \"a\"", "a.toml:6: tracks[1].name: expected different names"),
        ("name = \"b\"", "name = \"B\"", "a.toml:6: tracks[1].name: expected a name of lower-case"),
        ("\"small\"", "\"large\"", "a.toml:7: tracks[1].model: expected \"model\" or one of"),
        ("[100, 0.0]", "[0, 0.0]", "a.toml:8: tracks[1].weight: expected steps that grow"),
        ("[100, 0.0]", "[100, -1]", "a.toml:8: tracks[1].weight: expected a number of at least"),
        ("[[0, 1.0], [100, 0.0]]", "\"x\"", "a.toml:8: tracks[1].weight: expected a number of at"),
        (
            "weight =",
            "wieght =",
            "a.toml:8: tracks[1].wieght: unknown key, expected one like weight",
        ),
        ("z_loss = 1e-4", "z_loss = -1", "a.toml:9: tracks[1].objective.z_loss: expected a number"),
        ("track = \"b\"", "track = \"c\"", "a.toml:12: tasks[0].track: expected one of [[tracks]]"),
        ("track = \"b\"\n", "", "a.toml:10: tasks[0].track: expected the name of one of"),
        ("every = 10", "batches = 0", "a.toml:13: tasks[0].batches: expected at least 1, got 0"),
        ("layers = 2", "layers = 0", "a.toml:2: model.parts.small.layers: expected a whole number"),
        ("layers = 2", "layerz = 2", "a.toml:2: model.parts.small.layerz: unknown key, expected"),
        ("layers = 2", "decay = 0.9", "a.toml:2: model.parts.small.decay: expected model.parts"),
        ("parts.small", "parts.model", "a.toml:1: model.parts.model: expected a name of"),
        ("name = \"a\"", "name = \"a\"\ndata = [\"x\"]", "a.toml:5: tracks[0].data: expected the"),
    ];
    for (from, to, expected) in cases {
        let error = load(&TWO.replacen(from, to, 1)).unwrap_err();
        assert!(error.starts_with(expected), "{error}\nis not\n{expected}");
    }
    let silent = "[sample]\nevery = 5\n[objective]\nkind = \"masked\"\n";
    let error = load(silent).unwrap_err();
    assert!(error.starts_with("a.toml:2: sample.every: expected 0, because no model"), "{error}");
    let idle = "[[tracks]]\nname = \"a\"\nweight = [[0, 1.0], [9, 0.0]]\n";
    let error = load(idle).unwrap_err();
    assert!(error.contains("a track with a weight above 0 at step 9"), "{error}");
    let error = load(&format!("[objective]\nz_loss = 1e-4\n{TWO}")).unwrap_err();
    assert!(error.contains("expected none beside [[tracks]]"), "{error}");
}
