//! Qwen3 (`Qwen3ForCausalLM`): Llama with an RMS norm on every query and key head.

use super::families::{Class, Family, Form, Model, first_misfit};
use super::llama::{self, Defaults};
use super::qwen2::{read_windows, write_windows};
use crate::models::DenseConfig;
use crate::objectives::Ability;

/// The family.
pub(super) const QWEN3: Family = Family {
    model_type: "qwen3",
    classes: &[Class { ability: Ability::GoesOn, name: "Qwen3ForCausalLM", lines: &llama::LINES }],
    prefix: "model.",
    head: "lm_head",
    computed: &llama::COMPUTED,
    model: Model::Dense(Form {
        misfit,
        write: |model, positions| {
            let mut keys = llama::write(model, positions);
            keys.insert("head_dim".into(), model.head_dim().into());
            keys.insert("attention_bias".into(), false.into());
            keys.extend(write_windows(model));
            keys
        },
        read: |keys| {
            keys.must_be("attention_bias", false, false)?;
            let defaults = Defaults { kv_heads: Some(32), head_dim: Some(128), positions: 32768 };
            let model = llama::read(keys, &defaults)?;
            read_windows(keys, DenseConfig { qk_norm: true, ..model })
        },
    }),
};

fn misfit(model: &DenseConfig) -> Option<&'static str> {
    llama::decoder_misfit(model).or_else(|| {
        first_misfit(&[
            (model.qk_norm, "it has norms of queries and keys"),
            (!model.bias && !model.qkv_bias, "it has no biases"),
        ])
    })
}
