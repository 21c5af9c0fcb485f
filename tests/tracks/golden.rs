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
    keeps(LLAMA, "cc908969ec21a2e9f0f60574f4d39c406b879dbc0a686c710343abcd5bbfc7e7");
}

#[test]
fn next_token_of_a_gpt2_keeps_its_digest() {
    keeps(GPT2, "c5f72f8b69375cc7a3f2cf776e7ad168dfd2251b0a3c687dfe699b93889db944");
}
