//! Several models in one run: their names, what is trained, what is shared and what follows.

use std::path::Path;

use octet_kernels::graph::{Init, ParameterId, Variables};

use super::{MAIN, Parts};
use crate::config::Config;
use crate::models::ModelSize;

const SIZE: ModelSize = ModelSize { vocabulary: 11, max_positions: 8 };

const TEXT: &str = "\
[model]
layers = 1
heads = 2
width = 16
[model.parts.teacher]
average_of = \"model\"
decay = 0.9
[model.parts.small]
layers = 1
heads = 2
width = 16
frozen = true
[model.parts.sharing]
layers = 1
heads = 2
width = 8
feed_forward = 64
shared_with = \"model\"
shared = [\"embedding.*\", \"blocks.0.feed_forward.down.*\", \"final_norm.weight\"]
";

fn build(text: &str, wanted: &[&str]) -> (Parts, Variables) {
    let config = Config::parse(text, Path::new("a.toml"), &[]).unwrap();
    let mut variables = Variables::new();
    let parts = Parts::build(&config.model, wanted, SIZE, &mut variables).unwrap();
    (parts, variables)
}

fn names(variables: &Variables) -> Vec<&str> {
    variables.parameters().iter().map(|p| p.name.as_str()).collect()
}

#[test]
fn only_what_is_used_is_built_and_models_keep_apart_by_name() {
    let (parts, variables) = build(TEXT, &[MAIN]);
    assert_eq!(parts.iter().count(), 1);
    assert!(names(&variables).iter().all(|name| !name.contains("small")));
    let (parts, variables) = build(TEXT, &["small", MAIN]);
    assert_eq!(parts.iter().count(), 2);
    for parameter in variables.parameters() {
        assert_eq!(parameter.trainable, !parameter.name.starts_with("small."), "{parameter:?}");
    }
    let own = |name: &str| variables.parameters().iter().position(|p| p.name == name).unwrap();
    let first = |name: &str| variables.first_values(ParameterId(own(name)), 1);
    assert_ne!(first("embedding.weight"), first("small.embedding.weight"));
}

#[test]
fn an_average_begins_as_what_it_follows_and_is_not_trained() {
    // What it needs is built before it.
    let (parts, variables) = build(TEXT, &["teacher"]);
    let [average] = parts.averages() else { panic!("one average") };
    assert_eq!(average.decay, 0.9);
    let all = variables.parameters();
    assert_eq!(average.pairs.len(), all.len() / 2);
    for &(follower, leader) in &average.pairs {
        let (own, other) = (&all[follower.0], &all[leader.0]);
        assert_eq!(own.name, format!("teacher.{}", other.name));
        assert_eq!((own.init, own.trainable), (Init::SameAs(leader), false));
    }
}

#[test]
fn what_is_shared_is_there_once_if_its_shape_is_the_same() {
    let (_, variables) = build(TEXT, &["sharing"]);
    let names = names(&variables);
    // Widths differ, so that only what does not depend on them could be shared.
    assert!(names.contains(&"sharing.embedding.weight"));
    let same = TEXT.replace("width = 8\nfeed_forward = 64\n", "width = 16\n");
    let (_, variables) = build(&same, &["sharing"]);
    let names = self::names(&variables);
    for shared in ["embedding.weight", "blocks.0.feed_forward.down.weight", "final_norm.weight"] {
        assert!(names.contains(&shared) && !names.contains(&format!("sharing.{shared}").as_str()));
    }
    assert!(names.contains(&"sharing.blocks.0.attention.qkv.weight"));
}
