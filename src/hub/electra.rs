//! ELECTRA (`ElectraForPreTraining`, the tower that judges, and `ElectraForMaskedLM`): BERT whose
//! embedding may be narrower than its blocks.

use super::bert;
use super::families::{Class, Family, Form, Model, first_misfit};
use super::table::{Line, Way, line};
use crate::models::EncoderConfig;
use crate::objectives::Ability;

/// The family.
pub(super) const ELECTRA: Family = Family {
    model_type: "electra",
    classes: &[
        Class { ability: Ability::Judges, name: "ElectraForPreTraining", lines: &REPLACED },
        Class { ability: Ability::FillsIn, name: "ElectraForMaskedLM", lines: &HIDDEN },
    ],
    prefix: "electra.",
    head: "generator_lm_head",
    computed: &bert::COMPUTED,
    model: Model::Encoder(Form {
        misfit: |_| first_misfit(&[]),
        write: |model, positions| {
            let mut keys = bert::write(model, positions);
            keys.insert("embedding_size".into(), model.embedding_width().into());
            keys
        },
        read: |keys| {
            Ok(EncoderConfig {
                embedding_width: Some(keys.whole("embedding_size", Some(128))?),
                pooler: false,
                head: ELECTRA.class_of(keys)?.ability == Ability::FillsIn,
                ..bert::read(keys)?
            })
        },
    }),
};

/// The modules of a tower that tells hidden tokens.
const HIDDEN: [Line; 16] = [
    line("embedding", &["electra.embeddings.word_embeddings"], Way::Tokens),
    line("positions", &["electra.embeddings.position_embeddings"], Way::Same),
    line("types", &["electra.embeddings.token_type_embeddings"], Way::Same),
    line("embedding_norm", &["electra.embeddings.LayerNorm"], Way::Same),
    line(
        "blocks.{}.attention.qkv",
        &[
            "electra.encoder.layer.{}.attention.self.query",
            "electra.encoder.layer.{}.attention.self.key",
            "electra.encoder.layer.{}.attention.self.value",
        ],
        Way::Qkv,
    ),
    line(
        "blocks.{}.attention.output",
        &["electra.encoder.layer.{}.attention.output.dense"],
        Way::Same,
    ),
    line(
        "blocks.{}.attention_norm",
        &["electra.encoder.layer.{}.attention.output.LayerNorm"],
        Way::Same,
    ),
    line("blocks.{}.feed_forward.up", &["electra.encoder.layer.{}.intermediate.dense"], Way::Same),
    line("blocks.{}.feed_forward.down", &["electra.encoder.layer.{}.output.dense"], Way::Same),
    line("blocks.{}.feed_forward_norm", &["electra.encoder.layer.{}.output.LayerNorm"], Way::Same),
    line("projection", &["electra.embeddings_project"], Way::Same),
    line("transform", &["generator_predictions.dense"], Way::Same),
    line("transform_norm", &["generator_predictions.LayerNorm"], Way::Same),
    line("head", &["generator_lm_head"], Way::Tokens),
    line("pooler", &[], Way::Unused),
    line("verdict.dense", &["discriminator_predictions.dense"], Way::Same),
];

/// Those of one that judges.
const REPLACED: [Line; HIDDEN.len() + 1] = {
    let mut lines =
        [line("verdict.output", &["discriminator_predictions.dense_prediction"], Way::Same);
            HIDDEN.len() + 1];
    let mut i = 0;
    while i < HIDDEN.len() {
        lines[i] = HIDDEN[i];
        i += 1;
    }
    lines[11] = line("transform", &[], Way::Unused);
    lines[12] = line("transform_norm", &[], Way::Unused);
    lines[13] = line("head", &[], Way::Unused);
    lines
};
