//! Qwen2 and Qwen2.5 (`Qwen2ForCausalLM`): Llama with biases on queries, keys and values, and
//! windows in some blocks if asked for.

use serde_json::{Map, Value, json};

use super::families::{Class, Family, Form, Model, first_misfit};
use super::keys::Keys;
use super::llama::{self, Defaults};
use crate::failure::Failure;
use crate::models::DenseConfig;
use crate::objectives::Ability;

/// The family.
pub(super) const QWEN2: Family = Family {
    model_type: "qwen2",
    classes: &[Class { ability: Ability::GoesOn, name: "Qwen2ForCausalLM", lines: &llama::LINES }],
    prefix: "model.",
    head: "lm_head",
    computed: &llama::COMPUTED,
    model: Model::Dense(Form {
        misfit,
        write: |model, positions| {
            let mut keys = llama::write(model, positions);
            if model.head_dim() * model.heads != model.width {
                keys.insert("head_dim".into(), model.head_dim().into());
            }
            keys.extend(write_windows(model));
            keys
        },
        read: |keys| {
            let defaults = Defaults { kv_heads: Some(32), head_dim: None, positions: 32768 };
            let model = llama::read(keys, &defaults)?;
            read_windows(keys, DenseConfig { qkv_bias: true, ..model })
        },
    }),
};

fn misfit(model: &DenseConfig) -> Option<&'static str> {
    llama::decoder_misfit(model).or_else(|| {
        first_misfit(&[
            (!model.qk_norm, "it has no norms of queries and keys"),
            (model.qkv_bias && !model.bias, "it has biases on queries, keys and values alone"),
        ])
    })
}

const SLIDING: &str = "sliding_attention";
const FULL: &str = "full_attention";

/// Which blocks see a window, as Qwen's families have it.
pub(super) fn write_windows(model: &DenseConfig) -> Map<String, Value> {
    let kind = |block| if model.window_of(block).is_some() { SLIDING } else { FULL };
    let keys = match model.window {
        None => json!({ "use_sliding_window": false }),
        Some(window) => json!({
            "use_sliding_window": true,
            "sliding_window": window,
            "max_window_layers": 0,
            "layer_types": (0..model.layers).map(kind).collect::<Vec<_>>(),
        }),
    };
    keys.as_object().cloned().unwrap_or_default()
}

/// Adds the windows that `config.json` gives blocks.
///
/// # Errors
/// Bad input: windows in blocks that follow no rule of Octet's.
pub(super) fn read_windows(keys: &Keys<'_>, model: DenseConfig) -> Result<DenseConfig, Failure> {
    if !keys.flag("use_sliding_window", false)? || keys.is_null("sliding_window") {
        return Ok(model);
    }
    let window = keys.whole("sliding_window", Some(4096))?;
    let first = keys.whole("max_window_layers", Some(28))?;
    let (key, sees_window): (_, Vec<bool>) = match keys.get("layer_types") {
        None => ("max_window_layers", (0..model.layers).map(|block| block >= first).collect()),
        Some(Value::Array(kinds)) if kinds.len() == model.layers => {
            ("layer_types", kinds.iter().map(|kind| kind == SLIDING).collect())
        }
        Some(_) => {
            let what = format!("expected a list of {} kinds of attention", model.layers);
            return Err(keys.refuse("layer_types", &what));
        }
    };
    let windows = [None].into_iter().chain((2..=model.layers).map(Some));
    let without = DenseConfig { window: None, full_attention_every: None, ..model };
    let mut rules = windows.map(|full_attention_every| DenseConfig {
        window: Some(window),
        full_attention_every,
        ..without.clone()
    });
    let same = |rule: &DenseConfig| {
        sees_window.iter().enumerate().all(|(block, sees)| rule.window_of(block).is_some() == *sees)
    };
    match rules.find(same) {
        Some(rule) => Ok(rule),
        None if sees_window.iter().all(|sees| !sees) => Ok(without),
        None => {
            let what = "expected windows in all blocks, or in all but every n-th";
            Err(keys.refuse(key, what))
        }
    }
}
