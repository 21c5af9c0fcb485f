//! BERT (`BertForPreTraining`, `BertForMaskedLM`), and what ELECTRA shares with it: post-norm
//! blocks, learned positions, types of texts.
//!
//! Their first class of a pair is that the second text follows, ours is the other one.

use serde_json::{Map, Value, json};

use super::families::{Class, Family, Form, Model, first_misfit};
use super::keys::Keys;
use super::table::{Line, Way, line};
use crate::failure::Failure;
use crate::models::EncoderConfig;
use crate::objectives::Ability;

/// The family.
pub(super) const BERT: Family = Family {
    model_type: "bert",
    classes: &[
        Class { ability: Ability::Pairs, name: "BertForPreTraining", lines: &PAIRS },
        Class { ability: Ability::FillsIn, name: "BertForMaskedLM", lines: &HIDDEN },
    ],
    prefix: "bert.",
    head: "cls.predictions.decoder",
    computed: &COMPUTED,
    model: Model::Encoder(Form {
        misfit: |model| {
            first_misfit(&[
                (model.embedding_width() == model.width, "its embedding is as wide as its blocks"),
                (model.head, "it tells tokens"),
            ])
        },
        write,
        read: |keys| {
            let pooler = BERT.class_of(keys)?.ability == Ability::Pairs;
            Ok(EncoderConfig { pooler, ..read(keys)? })
        },
    }),
};

/// Buffers, the second name of a parameter, and what folders of a class without pairs hold besides.
pub(super) const COMPUTED: [&str; 7] = [
    ".position_ids",
    ".embeddings.token_type_ids",
    "cls.predictions.decoder.bias",
    "cls.seq_relationship.weight",
    "cls.seq_relationship.bias",
    "bert.pooler.dense.weight",
    "bert.pooler.dense.bias",
];

/// The modules of a class with everything.
const PAIRS: [Line; 16] = [
    line("embedding", &["bert.embeddings.word_embeddings"], Way::Tokens),
    line("positions", &["bert.embeddings.position_embeddings"], Way::Same),
    line("types", &["bert.embeddings.token_type_embeddings"], Way::Same),
    line("embedding_norm", &["bert.embeddings.LayerNorm"], Way::Same),
    line(
        "blocks.{}.attention.qkv",
        &[
            "bert.encoder.layer.{}.attention.self.query",
            "bert.encoder.layer.{}.attention.self.key",
            "bert.encoder.layer.{}.attention.self.value",
        ],
        Way::Qkv,
    ),
    line(
        "blocks.{}.attention.output",
        &["bert.encoder.layer.{}.attention.output.dense"],
        Way::Same,
    ),
    line(
        "blocks.{}.attention_norm",
        &["bert.encoder.layer.{}.attention.output.LayerNorm"],
        Way::Same,
    ),
    line("blocks.{}.feed_forward.up", &["bert.encoder.layer.{}.intermediate.dense"], Way::Same),
    line("blocks.{}.feed_forward.down", &["bert.encoder.layer.{}.output.dense"], Way::Same),
    line("blocks.{}.feed_forward_norm", &["bert.encoder.layer.{}.output.LayerNorm"], Way::Same),
    line("transform", &["cls.predictions.transform.dense"], Way::Same),
    line("transform_norm", &["cls.predictions.transform.LayerNorm"], Way::Same),
    line("head", &["cls.predictions"], Way::Tokens),
    line("pooler", &["bert.pooler.dense"], Way::Same),
    line("next_sentence", &["cls.seq_relationship"], Way::Reversed),
    line("projection", &[], Way::Unused),
];

/// The same without what pairs need.
const HIDDEN: [Line; PAIRS.len()] = {
    let mut lines = PAIRS;
    lines[13] = line("pooler", &[], Way::Unused);
    lines[14] = line("next_sentence", &[], Way::Unused);
    lines
};

/// The keys that both families have.
pub(super) fn write(model: &EncoderConfig, positions: usize) -> Map<String, Value> {
    let keys = json!({
        "hidden_size": model.width,
        "intermediate_size": model.feed_forward(),
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "hidden_act": "gelu",
        "hidden_dropout_prob": model.dropout,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": positions,
        "type_vocab_size": 2,
        "initializer_range": model.init_std,
        "layer_norm_eps": model.norm_epsilon,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": true,
    });
    keys.as_object().cloned().unwrap_or_default()
}

/// The model that the keys of both families describe.
///
/// # Errors
/// Bad input: a key that is missing, or that Octet cannot compute.
pub(super) fn read(keys: &Keys<'_>) -> Result<EncoderConfig, Failure> {
    for (key, only) in [("hidden_act", "gelu"), ("position_embedding_type", "absolute")] {
        let word = keys.word(key, Some(only))?;
        if word != only {
            return Err(keys.refuse(key, &format!("expected \"{only}\", got \"{word}\"")));
        }
    }
    let types = keys.whole("type_vocab_size", Some(2))?;
    if types != 2 {
        return Err(keys.refuse("type_vocab_size", &format!("expected 2, got {types}")));
    }
    keys.must_be("tie_word_embeddings", true, true)?;
    keys.must_be("is_decoder", false, false)?;
    Ok(EncoderConfig {
        layers: keys.whole("num_hidden_layers", None)?,
        width: keys.whole("hidden_size", None)?,
        heads: keys.whole("num_attention_heads", None)?,
        feed_forward: Some(keys.whole("intermediate_size", None)?),
        max_positions: Some(keys.whole("max_position_embeddings", Some(512))?),
        norm_epsilon: keys.number("layer_norm_eps", Some(1e-12))?,
        dropout: keys.number("hidden_dropout_prob", Some(0.1))?,
        init_std: keys.number("initializer_range", Some(0.02))?,
        ..EncoderConfig::default()
    })
}
