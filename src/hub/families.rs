//! The families that folders are exchanged in, and which of them a model is.

use octet_kernels::dtype::DType;
use octet_kernels::graph::{Parameter, Variables};
use serde_json::{Map, Value};

use super::keys::Keys;
use super::table::{Line, Row, rows};
use super::{gpt2, llama, mistral, qwen2, qwen3};
use crate::config::Config;
use crate::failure::Failure;
use crate::models::parts::MAIN;
use crate::models::{DenseConfig, FamilyConfig, ModelSize, Scope};

/// A family of models as `transformers` knows it.
#[derive(Debug)]
pub(super) struct Family {
    /// `model_type` in `config.json`.
    pub(super) model_type: &'static str,
    /// The class with a language model's head.
    pub(super) architecture: &'static str,
    /// What the names of tensors begin with, but for the head, and but for folders of a model
    /// without its head.
    pub(super) prefix: &'static str,
    /// The head's module.
    pub(super) head: &'static str,
    /// Our modules and theirs.
    pub(super) lines: &'static [Line],
    /// Ends of names of tensors that are no parameters: each follows from `config.json`.
    pub(super) computed: &'static [&'static str],
    /// What keeps a model from being of this family, if anything does.
    pub(super) misfit: fn(&DenseConfig) -> Option<&'static str>,
    /// The family's own keys of `config.json`; the positions are those of the longest sequence.
    pub(super) write: fn(&DenseConfig, usize) -> Map<String, Value>,
    /// The model that `config.json` describes.
    pub(super) read: fn(&Keys<'_>) -> Result<DenseConfig, Failure>,
}

/// All families. A model is of the first that it fits.
pub(super) const FAMILIES: [&Family; 5] =
    [&gpt2::GPT2, &llama::LLAMA, &mistral::MISTRAL, &qwen2::QWEN2, &qwen3::QWEN3];

/// What `transformers` calls a dtype.
pub(super) fn torch_name(dtype: DType) -> &'static str {
    match dtype {
        DType::Bf16 => "bfloat16",
        DType::F16 => "float16",
        _ => "float32",
    }
}

/// The first thing that does not hold.
pub(super) fn first_misfit(checks: &[(bool, &'static str)]) -> Option<&'static str> {
    checks.iter().find(|(holds, _)| !holds).map(|(_, what)| *what)
}

/// The dense model of a configuration.
///
/// # Errors
/// Bad input: its model is of another family.
pub(super) fn dense(config: &Config) -> Result<&DenseConfig, Failure> {
    match &config.model.family {
        FamilyConfig::Dense(model) => Ok(model),
        _ => {
            Err(Failure::user("model.family: expected \"dense\", the only one with a mapping yet"))
        }
    }
}

/// The family that a model is of.
///
/// # Errors
/// Bad input: none computes what it computes.
pub(super) fn family_of(config: &Config) -> Result<&'static Family, Failure> {
    let tracks = config.tracks();
    let own = tracks.iter().filter(|track| track.model == MAIN);
    let writes: Vec<_> = own.filter_map(|track| track.objective.get().writes()).collect();
    if writes.is_empty() {
        return Err(Failure::user(
            "no objective of this run teaches its model to go on with a text, and the families of \
             transformers that this program knows do nothing else",
        ));
    }
    if writes.iter().any(|writes| writes.softcap.is_some()) {
        return Err(Failure::user(
            "objective.logit_softcap bounds the logits, and in no family of transformers that \
             this program knows they are bounded",
        ));
    }
    let model = dense(config)?;
    let mut misfits = Vec::new();
    for family in FAMILIES {
        match (family.misfit)(model) {
            None => return Ok(family),
            Some(what) => misfits.push(format!("{} ({what})", family.model_type)),
        }
    }
    let misfits = misfits.join(", ");
    Err(Failure::user(format!(
        "no family of transformers that this program knows computes this model: {misfits}"
    )))
}

/// The parameters of the model of a configuration that was stored, and their tensors.
///
/// # Errors
/// Bad input: the model cannot be built, or is none of this family.
pub(super) fn rows_of(family: &Family, config: &Config) -> Result<Vec<Row>, Failure> {
    rows(family.lines, &parameters(config)?, dense(config)?)
}

/// The parameters of the model of a configuration that was stored.
///
/// # Errors
/// Bad input: the model cannot be built.
pub(super) fn parameters(config: &Config) -> Result<Vec<Parameter>, Failure> {
    let vocabulary = config.model.vocabulary.ok_or_else(|| {
        Failure::user("model.vocabulary: expected the number of rows of the embedding, got nothing")
    })?;
    let mut variables = Variables::new();
    let size = ModelSize { vocabulary, max_positions: config.batch.sequence_length };
    config.model.family.get().build(size, &mut Scope::new(&mut variables))?;
    Ok(variables.parameters().to_vec())
}
