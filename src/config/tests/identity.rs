//! The keys of a run's identity: none comes without a word about checkpoints that do not name it.

use std::collections::BTreeSet;

use crate::config::{CAME_LATER, Config, WITHOUT_EFFECT};

/// Keys that every checkpoint names. Nothing is added here: see below.
const FROM_THE_FIRST: [&str; 42] = [
    "batch.global",
    "batch.lanes",
    "batch.micro",
    "batch.sequence_length",
    "data.document_masks",
    "data.reset_positions",
    "data.validation_fraction",
    "model.activation",
    "model.bias",
    "model.dropout",
    "model.dtype",
    "model.family",
    "model.feed_forward",
    "model.head_dim",
    "model.heads",
    "model.init_std",
    "model.kv_heads",
    "model.layers",
    "model.norm",
    "model.norm_epsilon",
    "model.positions",
    "model.qk_norm",
    "model.qkv_bias",
    "model.rope_theta",
    "model.tied",
    "model.width",
    "objective.chunk_rows",
    "objective.kind",
    "objective.label_smoothing",
    "objective.z_loss",
    "optimizer.beta1",
    "optimizer.beta2",
    "optimizer.clip_norm",
    "optimizer.epsilon",
    "optimizer.weight_decay",
    "run.deterministic",
    "run.seed",
    "schedule.learning_rate",
    "schedule.minimum",
    "schedule.shape",
    "schedule.steps",
    "schedule.warmup",
];

fn identity() -> std::collections::BTreeMap<String, String> {
    let mut config = Config::default();
    config.resolve();
    config.identity()
}

#[test]
fn a_key_that_is_new_says_what_builds_before_it_did() {
    let later: BTreeSet<&str> = CAME_LATER.iter().map(|(key, _)| *key).collect();
    let known: BTreeSet<&str> = FROM_THE_FIRST.into_iter().collect();
    for key in identity().keys().map(String::as_str) {
        assert!(
            known.contains(key) || later.contains(key),
            "{key} is new: a checkpoint that does not name it is refused. Give it a line in \
             CAME_LATER with the value that builds before had, leave it out of the stored form \
             where it has that value, or list it in WITHOUT_EFFECT"
        );
    }
    assert!(known.is_disjoint(&later), "what every checkpoint names came later?");
}

#[test]
fn what_is_said_of_keys_is_about_keys_that_there_are() {
    let identity = identity();
    for (key, value) in CAME_LATER {
        let now = identity.get(*key).unwrap_or_else(|| panic!("there is no {key} any more"));
        assert!(!value.is_empty() && !WITHOUT_EFFECT.iter().any(|(other, _)| other == key));
        // Both values are written as the stored form writes them.
        let line = |value: &str| format!("x = {value}").parse::<toml::Table>();
        assert!(line(value).is_ok() && line(now).is_ok(), "{key}: {value}, {now}");
    }
    for key in FROM_THE_FIRST {
        assert!(identity.contains_key(key), "{key} is gone: checkpoints that name it are refused");
    }
}
