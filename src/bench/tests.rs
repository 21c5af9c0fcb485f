//! Benched steps are steps: a profile accounts for every node and for all of the time.

use crate::backend::Chosen;
use crate::bench::{Profile, StepBench};
use crate::config::Config;

const TEXT: &str = r#"
[run]
steps = 3
[data]
text = "text"
[batch]
micro = 2
global = 8
sequence_length = 16
[model]
family = "dense"
layers = 1
heads = 2
width = 32
vocabulary = 64
"#;

#[test]
fn a_profile_counts_every_node_and_most_of_the_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.toml");
    std::fs::write(&path, TEXT).unwrap();
    let config = Config::load(&path, &[]).unwrap();
    let mut bench = StepBench::new(&config, 64, Chosen::cpu(&config)).unwrap();
    assert_eq!(bench.tokens(), 128);
    assert!(bench.step(None).unwrap() > 0.0);
    let mut profile = Profile::new();
    let seconds = bench.step(Some(&mut profile)).unwrap();
    let linear = profile["linear"];
    // Four micro-batches of qkv, output, up and down.
    assert_eq!(linear.count, 16);
    assert!(linear.flops > 0.0);
    assert_eq!(profile["(fold)"].count % 3, 0);
    assert_eq!(profile["(update)"].count, 1);
    let sum: f64 = profile.values().map(|share| share.seconds).sum();
    assert!(sum <= seconds, "{sum} of {seconds}");
}
