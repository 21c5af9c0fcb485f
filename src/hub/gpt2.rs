//! GPT-2 (`GPT2LMHeadModel`): learned positions, layer norms, biases everywhere, matrices stored
//! `[in, out]`. And the same layers as nanoGPT stores them, `[out, in]`.

use serde_json::{Map, Value, json};

use super::families::{Class, Family, Form, Model, first_misfit};
use super::keys::Keys;
use super::table::{Line, Way, line};
use crate::failure::Failure;
use crate::models::DenseConfig;
use crate::models::dense::{ActivationKind, NormKind, Positions};
use crate::objectives::Ability;

/// The family.
pub(super) const GPT2: Family = Family {
    model_type: "gpt2",
    classes: &[Class { ability: Ability::GoesOn, name: "GPT2LMHeadModel", lines: &LINES }],
    prefix: "transformer.",
    head: "lm_head",
    computed: &[".attn.bias", ".attn.masked_bias"],
    model: Model::Dense(Form { misfit, write, read }),
};

/// Its modules.
const LINES: [Line; 10] = [
    line("embedding", &["transformer.wte"], Way::Tokens),
    line("positions", &["transformer.wpe"], Way::Same),
    line("blocks.{}.attention_norm", &["transformer.h.{}.ln_1"], Way::Same),
    line("blocks.{}.attention.qkv", &["transformer.h.{}.attn.c_attn"], Way::Transposed),
    line("blocks.{}.attention.output", &["transformer.h.{}.attn.c_proj"], Way::Transposed),
    line("blocks.{}.feed_forward_norm", &["transformer.h.{}.ln_2"], Way::Same),
    line("blocks.{}.feed_forward.up", &["transformer.h.{}.mlp.c_fc"], Way::Transposed),
    line("blocks.{}.feed_forward.down", &["transformer.h.{}.mlp.c_proj"], Way::Transposed),
    line("final_norm", &["transformer.ln_f"], Way::Same),
    line("head", &["lm_head"], Way::Tokens),
];

/// The lines of nanoGPT and llm.c: those of GPT-2, nothing transposed.
pub(super) const NANOGPT: [Line; LINES.len()] = {
    let mut lines = LINES;
    let mut i = 0;
    while i < lines.len() {
        if matches!(lines[i].way, Way::Transposed) {
            lines[i].way = Way::Same;
        }
        i += 1;
    }
    lines
};

fn misfit(model: &DenseConfig) -> Option<&'static str> {
    first_misfit(&[
        (model.norm == NormKind::LayerNorm, "its norms are layer norms"),
        (model.positions == Positions::Learned, "its positions are learned"),
        (model.activation == ActivationKind::Gelu, "its activation is GELU"),
        (model.bias, "it has biases"),
        (!model.qk_norm, "it has no norms of queries and keys"),
        (model.window.is_none(), "it has no window"),
        (model.kv_heads() == model.heads, "it has as many key heads as query heads"),
        (model.head_dim() * model.heads == model.width, "its heads are width / heads wide"),
        (!model.parallel, "its feed-forward follows attention"),
    ])
}

fn write(model: &DenseConfig, positions: usize) -> Map<String, Value> {
    let keys = json!({
        "n_positions": positions,
        "n_embd": model.width,
        "n_layer": model.layers,
        "n_head": model.heads,
        "n_inner": model.feed_forward(),
        "activation_function": "gelu_new",
        "resid_pdrop": model.dropout,
        "embd_pdrop": model.embedding_dropout(),
        "attn_pdrop": 0.0,
        "layer_norm_epsilon": model.norm_epsilon,
        "initializer_range": model.init_std.unwrap_or(0.02),
        "scale_attn_weights": true,
        "scale_attn_by_inverse_layer_idx": false,
        "tie_word_embeddings": model.tied,
    });
    keys.as_object().cloned().unwrap_or_default()
}

fn read(keys: &Keys<'_>) -> Result<DenseConfig, Failure> {
    keys.must_be("scale_attn_weights", true, true)?;
    keys.must_be("scale_attn_by_inverse_layer_idx", false, false)?;
    let activation = keys.word("activation_function", Some("gelu_new"))?;
    if !["gelu_new", "gelu_pytorch_tanh"].contains(&activation) {
        let what = format!("expected \"gelu_new\", GELU with tanh, got \"{activation}\"");
        return Err(keys.refuse("activation_function", &what));
    }
    let dropout = keys.number("resid_pdrop", Some(0.1))?;
    let embedding_dropout = keys.number("embd_pdrop", Some(0.1))?;
    let width = keys.whole("n_embd", None)?;
    Ok(DenseConfig {
        dropout,
        embedding_dropout: (embedding_dropout != dropout).then_some(embedding_dropout),
        feed_forward: Some(keys.whole("n_inner", Some(4 * width))?),
        norm_epsilon: keys.number("layer_norm_epsilon", Some(1e-5))?,
        init_std: Some(keys.number("initializer_range", Some(0.02))?),
        max_positions: Some(keys.whole("n_positions", Some(1024))?),
        tied: keys.flag("tie_word_embeddings", true)?,
        ..shape(keys.whole("n_layer", None)?, keys.whole("n_head", None)?, width)
    })
}

/// A GPT-2 of this size.
pub(super) fn shape(layers: usize, heads: usize, width: usize) -> DenseConfig {
    DenseConfig {
        layers,
        heads,
        width,
        norm: NormKind::LayerNorm,
        positions: Positions::Learned,
        activation: ActivationKind::Gelu,
        bias: true,
        tied: true,
        ..DenseConfig::default()
    }
}

/// The model that the `config.json` beside nanoGPT's tensors describes: its `model_args`. `bias`
/// false is a model whose biases begin at 0.
///
/// # Errors
/// Bad input: a key that is missing or has another type.
pub(super) fn read_nanogpt(keys: &Keys<'_>) -> Result<DenseConfig, Failure> {
    let [layers, heads, width] = ["n_layer", "n_head", "n_embd"].map(|key| keys.whole(key, None));
    Ok(DenseConfig {
        dropout: keys.number("dropout", Some(0.0))?,
        max_positions: Some(keys.whole("block_size", None)?),
        ..shape(layers?, heads?, width?)
    })
}
