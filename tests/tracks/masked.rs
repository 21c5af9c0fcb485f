//! BERT: hidden tokens and pairs.

use octet_actors::contract::Workload;

use crate::harness::{ends, experiment, one_digest};

const BERT: &str = "\
[model]
family = \"encoder\"
layers = 1
heads = 2
width = 32
init_std = 0.1
[objective]
kind = \"masked\"
next_sentence = true
";

#[test]
fn bert_learns_what_is_hidden_whatever_the_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let bert = experiment(folder.path(), BERT);
    let trial = one_digest(&bert);
    let (first, last) = ends(&trial, "masked");
    assert!(last < 0.85 * first, "{first} to {last}");
    assert_eq!(trial.reports[0].losses[1].0, "next_sentence");
    let names: Vec<&str> = bert.evaluations().iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["validation"]);
    assert!(trial.tensors.contains_key("next_sentence.weight.exp_avg"));
}
