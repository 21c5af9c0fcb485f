//! ELECTRA: two models in one program, and draws inside it.

use octet_actors::contract::Workload;

use crate::harness::{ends, experiment, one_digest};

const ELECTRA: &str = "\
[model]
family = \"encoder\"
layers = 1
heads = 2
width = 32
embedding_width = 16
init_std = 0.1
head = false
pooler = false
[model.parts.generator]
family = \"encoder\"
layers = 1
heads = 2
width = 16
init_std = 0.1
pooler = false
shared_with = \"model\"
shared = [\"embedding.*\", \"positions.*\", \"types.*\"]
[objective]
kind = \"replaced_token\"
weight = 2.0
";

#[test]
fn electra_learns_to_fill_in_and_to_judge_whatever_the_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let electra = experiment(folder.path(), ELECTRA);
    let trial = one_digest(&electra);
    let (first, last) = ends(&trial, "generator");
    assert!(last < 0.85 * first, "{first} to {last}");
    assert_eq!(trial.reports[0].losses[1].0, "verdict");
    // Tables are shared, blocks are not.
    let names: Vec<&str> =
        electra.variables().parameters().iter().map(|p| p.name.as_str()).collect();
    assert!(names.contains(&"generator.blocks.0.attention.qkv.weight"));
    assert!(!names.iter().any(|name| name.starts_with("generator.embedding.")));
    let report = &trial.reports[0];
    let sum = report.losses[0].1 + 2.0 * report.losses[1].1;
    assert!((report.loss - sum).abs() < 1e-4 * sum, "{report:?}");
}
