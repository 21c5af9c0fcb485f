//! Llama (`LlamaForCausalLM`), and what Mistral and Qwen share with it: RMS norms, rotary positions
//! in halves, SwiGLU.

use serde_json::{Map, Value, json};

use super::families::{Class, Family, Form, Model, first_misfit};
use super::keys::Keys;
use super::rope;
use super::table::{Line, Way, line};
use crate::failure::Failure;
use crate::models::DenseConfig;
use crate::models::dense::{ActivationKind, NormKind, Positions};
use crate::objectives::Ability;

/// The family.
pub(super) const LLAMA: Family = Family {
    model_type: "llama",
    classes: &[Class { ability: Ability::GoesOn, name: "LlamaForCausalLM", lines: &LINES }],
    prefix: "model.",
    head: "lm_head",
    computed: &COMPUTED,
    model: Model::Dense(Form {
        misfit,
        write: |model, positions| {
            let mut keys = write(model, positions);
            keys.insert("head_dim".into(), model.head_dim().into());
            keys.insert("attention_bias".into(), model.bias.into());
            keys.insert("mlp_bias".into(), model.bias.into());
            keys
        },
        read: |keys| {
            let defaults = Defaults { kv_heads: None, head_dim: None, positions: 2048 };
            let bias = keys.flag("attention_bias", false)?;
            if keys.flag("mlp_bias", false)? != bias {
                let what = "expected the same as attention_bias, since Octet has both or none";
                return Err(keys.refuse("mlp_bias", what));
            }
            Ok(DenseConfig { bias, ..read(keys, &defaults)? })
        },
    }),
};

/// Its modules; those of norms on heads are Qwen3's only.
pub(super) const LINES: [Line; 11] = [
    line("embedding", &["model.embed_tokens"], Way::Tokens),
    line("blocks.{}.attention_norm", &["model.layers.{}.input_layernorm"], Way::Same),
    line(
        "blocks.{}.attention.qkv",
        &[
            "model.layers.{}.self_attn.q_proj",
            "model.layers.{}.self_attn.k_proj",
            "model.layers.{}.self_attn.v_proj",
        ],
        Way::Qkv,
    ),
    line("blocks.{}.attention.q_norm", &["model.layers.{}.self_attn.q_norm"], Way::Same),
    line("blocks.{}.attention.k_norm", &["model.layers.{}.self_attn.k_norm"], Way::Same),
    line("blocks.{}.attention.output", &["model.layers.{}.self_attn.o_proj"], Way::Same),
    line("blocks.{}.feed_forward_norm", &["model.layers.{}.post_attention_layernorm"], Way::Same),
    line(
        "blocks.{}.feed_forward.gate_up",
        &["model.layers.{}.mlp.gate_proj", "model.layers.{}.mlp.up_proj"],
        Way::Halves,
    ),
    line("blocks.{}.feed_forward.down", &["model.layers.{}.mlp.down_proj"], Way::Same),
    line("final_norm", &["model.norm"], Way::Same),
    line("head", &["lm_head"], Way::Tokens),
];

/// What old folders hold beside parameters.
pub(super) const COMPUTED: [&str; 1] = [".rotary_emb.inv_freq"];

fn misfit(model: &DenseConfig) -> Option<&'static str> {
    decoder_misfit(model).or_else(|| {
        first_misfit(&[
            (!model.qk_norm, "it has no norms of queries and keys"),
            (model.window.is_none(), "it has no window"),
            (model.bias || !model.qkv_bias, "its queries have no biases alone"),
        ])
    })
}

/// What keeps a model from being of any family of this kind.
pub(super) fn decoder_misfit(model: &DenseConfig) -> Option<&'static str> {
    first_misfit(&[
        (model.norm == NormKind::RmsNorm, "its norms are RMS norms"),
        (model.positions == Positions::Rope, "its positions are rotary"),
        (model.activation == ActivationKind::Swiglu, "its activation is SwiGLU"),
        (!model.parallel, "its feed-forward follows attention"),
    ])
}

/// The keys that all families of this kind have.
pub(super) fn write(model: &DenseConfig, positions: usize) -> Map<String, Value> {
    let keys = json!({
        "hidden_size": model.width,
        "intermediate_size": model.feed_forward(),
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads(),
        "hidden_act": "silu",
        "max_position_embeddings": positions,
        "initializer_range": model.init_std.unwrap_or(0.02),
        "rms_norm_eps": model.norm_epsilon,
        "rope_theta": model.rope_theta,
        "rope_scaling": rope::write(model.rope_scaling),
        "attention_dropout": 0.0,
        "tie_word_embeddings": model.tied,
    });
    keys.as_object().cloned().unwrap_or_default()
}

/// What `transformers` takes for a key that is missing.
#[derive(Debug)]
pub(super) struct Defaults {
    /// Key heads; `None`: as many as query heads.
    pub(super) kv_heads: Option<usize>,
    /// Elements of a head; `None`: width / heads.
    pub(super) head_dim: Option<usize>,
    /// Positions.
    pub(super) positions: usize,
}

/// The model that the keys of all families of this kind describe.
///
/// # Errors
/// Bad input: a key that is missing, or that Octet cannot compute.
pub(super) fn read(keys: &Keys<'_>, defaults: &Defaults) -> Result<DenseConfig, Failure> {
    let activation = keys.word("hidden_act", Some("silu"))?;
    if !["silu", "swish"].contains(&activation) {
        let what = format!("expected \"silu\", got \"{activation}\"");
        return Err(keys.refuse("hidden_act", &what));
    }
    if keys.number("partial_rotary_factor", Some(1.0))? != 1.0 {
        let what = "expected 1, since Octet rotates whole heads";
        return Err(keys.refuse("partial_rotary_factor", what));
    }
    let heads = keys.whole("num_attention_heads", None)?;
    let width = keys.whole("hidden_size", None)?;
    let head_dim = defaults.head_dim.unwrap_or(width / heads.max(1));
    let max_positions = keys.whole("max_position_embeddings", Some(defaults.positions))?;
    let (rope_theta, rope_scaling) = rope::read(keys, max_positions)?;
    Ok(DenseConfig {
        layers: keys.whole("num_hidden_layers", None)?,
        heads,
        kv_heads: Some(
            keys.whole("num_key_value_heads", Some(defaults.kv_heads.unwrap_or(heads)))?,
        ),
        width,
        head_dim: Some(keys.whole("head_dim", Some(head_dim))?),
        feed_forward: Some(keys.whole("intermediate_size", None)?),
        norm: NormKind::RmsNorm,
        norm_epsilon: keys.number("rms_norm_eps", Some(1e-6))?,
        positions: Positions::Rope,
        rope_theta,
        rope_scaling,
        activation: ActivationKind::Swiglu,
        tied: keys.flag("tie_word_embeddings", false)?,
        init_std: Some(keys.number("initializer_range", Some(0.02))?),
        max_positions: Some(max_positions),
        ..DenseConfig::default()
    })
}
