//! Tests of the groups: which parameters a group takes, and what is refused.

use octet_actors::contract::UpdateGroup;
use octet_kernels::graph::Variables;

use super::rules::{AdamWConfig, LionConfig};
use super::{GroupConfig, OptimizerConfig, RuleConfig};
use crate::config::Config;
use crate::models::{ModelSize, Scope, fits};

fn load(text: &str) -> Result<Config, String> {
    let path = std::path::Path::new("a.toml");
    Config::parse(text, path, &[]).map_err(|error| error.to_string())
}

/// Groups by name of a model with everything that has a role.
fn groups(optimizer: &str) -> Vec<(String, UpdateGroup)> {
    let model = "[model]\nlayers = 2\nnorm = \"layer_norm\"\npositions = \"learned\"\n\
                 bias = true\ntied = false\nqk_norm = true\n";
    let config = load(&format!("{model}{optimizer}")).unwrap();
    let mut variables = Variables::new();
    let size = ModelSize { vocabulary: 3, max_positions: 2 };
    config.model.family.get().build(size, &mut Scope::new(&mut variables)).unwrap();
    let parameters = variables.parameters().iter();
    parameters.map(|p| (p.name.clone(), config.optimizer.group_of(p))).collect()
}

fn taken(parameters: &str) -> Vec<String> {
    let text = format!(
        "[[optimizer.groups]]\nparameters = [{parameters}]\nlearning_rate = 0.5\nweight_decay = 7\n"
    );
    let own = UpdateGroup { learning_rate: 0.5, weight_decay: 7.0 };
    groups(&text).into_iter().filter(|(_, group)| *group == own).map(|(name, _)| name).collect()
}

#[test]
fn without_groups_matrices_decay_and_vectors_do_not() {
    for (name, group) in groups("") {
        let vector = name.ends_with("bias") || name.contains("norm");
        let weight_decay = if vector { 0.0 } else { 0.1 };
        assert_eq!(group, UpdateGroup { learning_rate: 1.0, weight_decay }, "{name}");
    }
}

#[test]
fn every_parameter_has_one_role() {
    let all: Vec<String> = groups("").into_iter().map(|(name, _)| name).collect();
    let mut found = Vec::new();
    for role in ["embeddings", "positions", "norms", "biases", "head", "matrices"] {
        let of_role = taken(&format!("\"{role}\""));
        assert!(!of_role.is_empty(), "{role}");
        found.extend(of_role);
    }
    let mut all_sorted = all.clone();
    all_sorted.sort();
    found.sort();
    assert_eq!(found, all_sorted);
    assert_eq!(taken("\"embeddings\", \"head\""), ["embedding.weight", "head.weight"]);
    assert!(taken("\"norms\"").iter().any(|n| n == "blocks.1.attention.q_norm.weight"));
    assert!(taken("\"biases\"").iter().any(|n| n == "final_norm.bias"));
    assert_eq!(taken("\"matrices\"").len(), 8);
}

#[test]
fn names_may_have_stars_and_the_first_group_decides() {
    assert!(fits("a*", "a") && fits("*.b", "a.b") && fits("a*c*e", "abcde") && fits("*", "é"));
    assert!(!fits("a", "ab") && !fits("*.b", "ab") && !fits("a*c*e", "abde"));
    let first = taken("\"blocks.0.*\"");
    assert!(!first.is_empty() && first.iter().all(|name| name.starts_with("blocks.0.")));
    let text = "[[optimizer.groups]]\nparameters = [\"head\"]\nlearning_rate = 2\n\
                [[optimizer.groups]]\nparameters = [\"*\"]\nweight_decay = 0\n";
    for (name, group) in groups(text) {
        let expected = match name.as_str() {
            "head.weight" => UpdateGroup { learning_rate: 2.0, weight_decay: 0.1 },
            _ => UpdateGroup { learning_rate: 1.0, weight_decay: 0.0 },
        };
        assert_eq!(group, expected, "{name}");
    }
}

#[test]
fn mistakes_are_refused() {
    let refused = |group: &str| load(&format!("[[optimizer.groups]]\n{group}\n")).unwrap_err();
    for (group, says) in [
        ("parameters = [\"heads\"]", "or the name of a parameter of the model like \"final_norm"),
        ("parameters = []", "expected some parameters in group 1, got none"),
        ("parameters = [\"norms\"]\nlearning_rate = -1", "a learning_rate of at least 0 in group"),
        ("parameters = [\"norms\"]\nweight_decay = -1", "expected a weight_decay of at least 0"),
        ("parameters = [\"norms\"]\ndecay = 1", "unknown field `decay`"),
        ("learning_rate = 1", "missing field `parameters`"),
    ] {
        let refusal = refused(group);
        assert!(refusal.starts_with("a.toml:1: optimizer.groups"), "{refusal}");
        assert!(refusal.contains(says), "{refusal}");
    }
}

#[test]
fn rules_have_their_own_keys_and_defaults() {
    let rule = |text: &str| load(&format!("[optimizer]\n{text}\n")).map(|c| c.optimizer);
    let lion = rule("rule = \"lion\"\nbeta1 = 0.8").unwrap();
    assert_eq!(lion.rule, RuleConfig::Lion(LionConfig { beta1: 0.8, beta2: 0.99 }));
    assert_eq!(lion.spec().rule.name(), "Lion");
    let adamw = rule("moments = \"8bit\"").unwrap();
    let numbers = AdamWConfig { beta1: 0.9, beta2: 0.95, epsilon: 1e-8 };
    assert_eq!(adamw.rule, RuleConfig::AdamW(numbers));
    assert_eq!(adamw.spec().storage, octet_kernels::update::Storage::Blocks8);
    for (text, says) in [
        ("rule = \"lion\"\nepsilon = 1e-8", "a.toml:3: optimizer.epsilon: unknown key"),
        ("rule = \"muon\"", "a.toml:2: optimizer.rule: "),
        ("moments = \"f16\"", "a.toml:2: optimizer.moments: "),
        ("rule = \"lion\"\nbeta2 = 1", "expected at least 0 and below 1, got 1"),
        ("epsilon = 0", "a.toml:2: optimizer.epsilon: expected a number above 0, got 0"),
    ] {
        let refusal = rule(text).unwrap_err();
        assert!(refusal.contains(says), "{refusal}");
    }
    for text in ["rule = \"muon\"", "moments = \"f16\""] {
        let refusal = rule(text).unwrap_err();
        let known = ["\"lion\"", "\"8bit\""];
        assert!(known.iter().any(|known| refusal.contains(known)), "{refusal}");
    }
}

#[test]
fn rule_and_storage_are_part_of_the_identity() {
    let plain = load("").unwrap().identity();
    let other = |text: &str| load(&format!("[optimizer]\n{text}\n")).unwrap();
    for text in ["rule = \"lion\"", "moments = \"bf16\"", "moments = \"8bit\""] {
        let other = other(text);
        assert_ne!(other.identity(), plain);
        assert_eq!(load(&other.to_toml()).unwrap(), other);
    }
}

#[test]
fn groups_are_part_of_the_identity() {
    let plain = load("").unwrap();
    let mut grouped = plain.clone();
    let group = GroupConfig {
        parameters: vec!["norms".to_owned()],
        learning_rate: 1.0,
        weight_decay: Some(0.1),
    };
    grouped.optimizer = OptimizerConfig { groups: vec![group], ..plain.optimizer.clone() };
    assert_ne!(plain.digest(), grouped.digest());
    let stored = load(&grouped.to_toml()).unwrap();
    assert_eq!(stored, grouped);
}
