//! Runs whose every bit is kept: a change that moves one says so by changing a digest here.
//!
//! The same on every instruction set, any threads and ranks.

use crate::harness::{experiment, one_digest};

const LLAMA: &str = "\
[model]
family = \"dense\"
layers = 2
heads = 4
kv_heads = 2
width = 32
norm = \"rms_norm\"
positions = \"rope\"
activation = \"swiglu\"
";

const GPT2: &str = "\
[model]
family = \"dense\"
layers = 2
heads = 2
width = 32
norm = \"layer_norm\"
positions = \"learned\"
activation = \"gelu\"
bias = true
tied = true
dropout = 0.1
";

fn keeps(own: &str, digest: &str) {
    let folder = tempfile::tempdir().unwrap();
    let trial = one_digest(&experiment(folder.path(), own));
    assert_eq!(trial.digest, digest);
}

#[test]
fn next_token_of_a_llama_keeps_its_digest() {
    keeps(LLAMA, "");
}

#[test]
fn next_token_of_a_gpt2_keeps_its_digest() {
    keeps(GPT2, "");
}
