//! The families that folders are exchanged in, and which of them a model is.

use octet_kernels::dtype::DType;
use octet_kernels::graph::{Parameter, Variables};
use serde_json::{Map, Value};

use super::keys::Keys;
use super::table::{Line, Row, rows};
use super::{bert, electra, gpt2, llama, mistral, qwen2, qwen3};
use crate::config::{Config, TrackConfig};
use crate::failure::Failure;
use crate::models::parts::MAIN;
use crate::models::{DenseConfig, EncoderConfig, FamilyConfig, ModelSize, Scope};
use crate::objectives::Ability;

/// A family of models as `transformers` knows it.
#[derive(Debug)]
pub(super) struct Family {
    /// `model_type` in `config.json`.
    pub(super) model_type: &'static str,
    /// Its classes that this program knows.
    pub(super) classes: &'static [Class],
    /// What the names of tensors begin with, but for the head, and but for folders of a model
    /// without its head.
    pub(super) prefix: &'static str,
    /// The head's module.
    pub(super) head: &'static str,
    /// Ends of names of tensors that are no parameters: each follows from `config.json`.
    pub(super) computed: &'static [&'static str],
    /// Which of our families it is, and between the two.
    pub(super) model: Model,
}

/// A class of a family: its models with what they are trained with.
#[derive(Debug)]
pub(super) struct Class {
    /// What for.
    pub(super) ability: Ability,
    /// As `architectures` in `config.json` has it.
    pub(super) name: &'static str,
    /// Our modules and theirs.
    pub(super) lines: &'static [Line],
}

/// Between a family of ours and one of theirs.
#[derive(Debug)]
pub(super) struct Form<M> {
    /// What keeps a model from being of this family, if anything does.
    pub(super) misfit: fn(&M) -> Option<&'static str>,
    /// The family's own keys of `config.json`; the positions are those of the longest sequence.
    pub(super) write: fn(&M, usize) -> Map<String, Value>,
    /// The model that `config.json` describes.
    pub(super) read: fn(&Keys<'_>) -> Result<M, Failure>,
}

/// The same for each family of ours that has any of theirs.
#[derive(Debug)]
pub(super) enum Model {
    Dense(Form<DenseConfig>),
    Encoder(Form<EncoderConfig>),
}

/// All families. A model is of the first that it fits.
pub(super) const FAMILIES: [&Family; 7] = [
    &gpt2::GPT2,
    &llama::LLAMA,
    &mistral::MISTRAL,
    &qwen2::QWEN2,
    &qwen3::QWEN3,
    &bert::BERT,
    &electra::ELECTRA,
];

impl Model {
    /// As [`Form::misfit`]; `None` for a model of another family of ours.
    pub(super) fn misfit(&self, model: &FamilyConfig) -> Option<Option<&'static str>> {
        match (self, model) {
            (Self::Dense(form), FamilyConfig::Dense(model)) => Some((form.misfit)(model)),
            (Self::Encoder(form), FamilyConfig::Encoder(model)) => Some((form.misfit)(model)),
            _ => None,
        }
    }

    /// As [`Form::write`]. Panics for a model that does not fit.
    pub(super) fn write(&self, model: &FamilyConfig, positions: usize) -> Map<String, Value> {
        match (self, model) {
            (Self::Dense(form), FamilyConfig::Dense(model)) => (form.write)(model, positions),
            (Self::Encoder(form), FamilyConfig::Encoder(model)) => (form.write)(model, positions),
            _ => panic!("the model is of another family"),
        }
    }

    /// As [`Form::read`].
    pub(super) fn read(&self, keys: &Keys<'_>) -> Result<FamilyConfig, Failure> {
        match self {
            Self::Dense(form) => (form.read)(keys).map(FamilyConfig::Dense),
            Self::Encoder(form) => (form.read)(keys).map(FamilyConfig::Encoder),
        }
    }
}

impl Family {
    /// The class of what is trained for this, if there is one.
    pub(super) fn class(&self, ability: Ability) -> Option<&'static Class> {
        self.classes.iter().find(|class| class.ability == ability)
    }

    /// The class of a `config.json`; where there is but one, whatever it says: a folder of a model
    /// without its head names another.
    ///
    /// # Errors
    /// Bad input: it names none that this program knows.
    pub(super) fn class_of(&self, keys: &Keys<'_>) -> Result<&'static Class, Failure> {
        let named = keys.get("architectures").and_then(|list| list[0].as_str());
        let known = self.classes.iter().find(|class| Some(class.name) == named);
        let only = self.classes.first().filter(|_| self.classes.len() == 1);
        known.or(only).ok_or_else(|| {
            let names: Vec<&str> = self.classes.iter().map(|class| class.name).collect();
            let (names, named) = (names.join(" or "), named.unwrap_or("none"));
            keys.refuse("architectures", &format!("expected {names}, got {named}"))
        })
    }
}

/// What `transformers` calls a dtype.
pub(super) fn torch_name(dtype: DType) -> &'static str {
    match dtype {
        DType::Bf16 => "bfloat16",
        DType::F16 => "float16",
        _ => "float32",
    }
}

/// The type of a configuration's parameters.
pub(super) fn stored_type(config: &Config) -> DType {
    match &config.model.family {
        FamilyConfig::Dense(model) => model.dtype.into(),
        FamilyConfig::Encoder(model) => model.dtype.into(),
    }
}

/// The first thing that does not hold.
pub(super) fn first_misfit(checks: &[(bool, &'static str)]) -> Option<&'static str> {
    checks.iter().find(|(holds, _)| !holds).map(|(_, what)| *what)
}

/// The first track that trains the run's `[model]` for something that classes are made for.
fn trained(config: &Config) -> Option<(TrackConfig, Ability)> {
    let tracks = config.tracks().into_owned().into_iter();
    let mut own = tracks.filter(|track| track.model == MAIN);
    own.find_map(|track| Some((track.clone(), track.objective.get().teaches()?)))
}

/// The family that a model is of, and its class there.
///
/// # Errors
/// Bad input: none computes what it computes.
pub(super) fn family_of(config: &Config) -> Result<(&'static Family, &'static Class), Failure> {
    let Some((_, ability)) = trained(config) else {
        return Err(Failure::user(
            "no objective of this run trains its [model] for what a class of transformers does",
        ));
    };
    let tracks = config.tracks();
    let own = tracks.iter().filter(|track| track.model == MAIN);
    let mut writes = own.filter_map(|track| track.objective.get().writes());
    if writes.any(|writes| writes.softcap.is_some()) {
        return Err(Failure::user(
            "objective.logit_softcap bounds the logits, and in no family of transformers that \
             this program knows they are bounded",
        ));
    }
    let mut misfits = Vec::new();
    for family in FAMILIES {
        let Some(misfit) = family.model.misfit(&config.model.family) else { continue };
        let why = match (misfit, family.class(ability)) {
            (None, Some(class)) => return Ok((family, class)),
            (Some(what), _) => what,
            (None, None) => "it is trained for something else",
        };
        misfits.push(format!("{} ({why})", family.model_type));
    }
    let misfits = misfits.join(", ");
    Err(Failure::user(format!(
        "no family of transformers that this program knows computes this model: {misfits}"
    )))
}

/// The parameters of a stored configuration that a table is about, and their tensors.
///
/// # Errors
/// Bad input: the model cannot be built, or is none of this table's.
pub(super) fn rows_of(lines: &[Line], config: &Config) -> Result<Vec<Row>, Failure> {
    let (model, heads) = parameters(config)?;
    let mut rows = rows(lines, &[&model[..], &heads].concat(), &config.model.family)?;
    // A run of several tracks puts their names before what is an objective's own.
    if let Some((track, _)) = trained(config).filter(|(track, _)| !track.name.is_empty()) {
        let is_head = |row: &&mut Row| heads.iter().any(|head| head.name == row.ours);
        for row in rows.iter_mut().filter(is_head) {
            row.ours = format!("{}.{}", track.name, row.ours);
        }
    }
    Ok(rows)
}

/// The parameters of the `[model]` of a stored configuration, and those of the objective that
/// trains it.
///
/// # Errors
/// Bad input: the model cannot be built.
pub(super) fn parameters(config: &Config) -> Result<(Vec<Parameter>, Vec<Parameter>), Failure> {
    let vocabulary = config.model.vocabulary.ok_or_else(|| {
        Failure::user("model.vocabulary: expected the number of rows of the embedding, got nothing")
    })?;
    let mut variables = Variables::new();
    let size = ModelSize { vocabulary, max_positions: config.batch.sequence_length };
    let model = config.model.family.get().build(size, &mut Scope::new(&mut variables))?;
    let heads = trained(config).map(|(track, _)| track.objective.get().parameters(&*model));
    Ok((variables.parameters().to_vec(), heads.unwrap_or_default()))
}
