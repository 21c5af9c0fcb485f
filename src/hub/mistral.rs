//! Mistral (`MistralForCausalLM`): Llama in which every block sees a window.

use super::families::{Class, Family, Form, Model, first_misfit};
use super::llama::{self, Defaults};
use crate::models::DenseConfig;
use crate::objectives::Ability;

/// The family.
pub(super) const MISTRAL: Family = Family {
    model_type: "mistral",
    classes: &[Class {
        ability: Ability::GoesOn,
        name: "MistralForCausalLM",
        lines: &llama::LINES,
    }],
    prefix: "model.",
    head: "lm_head",
    computed: &llama::COMPUTED,
    model: Model::Dense(Form {
        misfit,
        write: |model, positions| {
            let mut keys = llama::write(model, positions);
            keys.insert("head_dim".into(), model.head_dim().into());
            keys.insert("sliding_window".into(), model.window.into());
            keys
        },
        read: |keys| {
            let defaults = Defaults { kv_heads: Some(8), head_dim: None, positions: 4096 * 32 };
            let model = llama::read(keys, &defaults)?;
            let window = match keys.is_null("sliding_window") {
                true => None,
                false => Some(keys.whole("sliding_window", Some(4096))?),
            };
            Ok(DenseConfig { window, ..model })
        },
    }),
};

fn misfit(model: &DenseConfig) -> Option<&'static str> {
    llama::decoder_misfit(model).or_else(|| {
        first_misfit(&[
            (!model.qk_norm, "it has no norms of queries and keys"),
            (!model.bias && !model.qkv_bias, "it has no biases"),
            (model.full_attention_every.is_none(), "every block of it sees a window"),
        ])
    })
}
