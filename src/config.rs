//! The configuration of a run: one TOML file, and `--set section.key=value` on top of it.
//!
//! Duty: reads, checks and completes a configuration before anything else happens, and writes the
//! form that is stored with the run. Each section is defined by its owner; this file only joins
//! them. Prohibition: touches no data and no device, and opens no file but the configuration, and
//! those of runs that it takes models from.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::composition::Composition;
use crate::data::{DataConfig, DataError};
use crate::models::ModelConfig;
use crate::models::ModelSize;
use crate::objectives::ObjectiveConfig;
use crate::optimizer::OptimizerConfig;
use crate::schedule::ScheduleConfig;

pub use batch::BatchConfig;
pub use error::{ConfigError, Invalid, Place};
pub use origins::Origins;
pub use sections::{
    CheckpointConfig, Device, EvaluateConfig, LogConfig, ProductsConfig, RecoveryConfig, RunConfig,
    SampleConfig, WebConfig,
};
pub use tracks::{TaskConfig, TrackConfig, Weight};

mod batch;
pub mod bytes;
pub(crate) mod error;
pub(crate) mod fields;
mod load;
mod origins;
pub mod reference;
pub(crate) mod sections;
pub(crate) mod tagged;
#[cfg(test)]
mod tests;
pub mod tracks;

/// A whole run.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long, on what, and with which numbers.
    pub run: RunConfig,
    /// The text and its tokens.
    pub data: DataConfig,
    /// How the sequences of a step are cut.
    pub batch: BatchConfig,
    /// What is trained.
    pub model: ModelConfig,
    /// What it is trained for.
    pub objective: ObjectiveConfig,
    /// Several objectives, models and sources at once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tracks: Vec<TrackConfig>,
    /// What is measured on held-out data, in place of every split under every objective.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskConfig>,
    /// How an update is made.
    pub optimizer: OptimizerConfig,
    /// The learning rate of each step.
    pub schedule: ScheduleConfig,
    /// What is kept on disk.
    pub checkpoint: CheckpointConfig,
    /// What is done about bad updates.
    pub recovery: RecoveryConfig,
    /// The loss on held-out data.
    pub evaluate: EvaluateConfig,
    /// Text that the model writes while it is trained.
    pub sample: SampleConfig,
    /// What is written beside the log of the steps.
    pub log: LogConfig,
    /// Metrics, dashboard and control over HTTP.
    pub web: WebConfig,
}

/// Keys that do not change a single bit of what is trained, each with the reason. Everything else
/// is part of a run's identity.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("run.ranks", "sums follow the lanes, not the ranks"),
    ("run.device", "CPU and GPU differ; the device stands in the manifest with its model"),
    ("run.products", "what multiplies on GPUs stands in the manifest"),
    ("run.bucket", "what it comes to for the model stands in the manifest"),
    ("run.threads", "CPU sums follow fixed chunks, not threads"),
    ("run.depth", "steps come in the same order, and one that overflows comes again before others"),
    ("run.snapshots", "they are where a run may go on from, not what it is"),
    ("run.patience", "when a hang is named changes no number"),
    ("run.zero", "it decides where state lies, not what it is"),
    ("run.steps", "only through the schedule: it is replaced by the steps of the schedule"),
    ("data.text", "the text may move; its content is the identity of the prepared data"),
    ("data.field", "as the text"),
    ("data.tokenizer", "a file may move; what it holds is in the identity of the prepared data"),
    ("data.split", "as data.tokenizer"),
    ("data.end_of_document", "as data.tokenizer"),
    ("data.url_field", "as the text"),
    ("data.clean", "what it makes of the text is the identity of the prepared data"),
    ("data.dedupe", "as data.clean"),
    ("data.bad_records_max", "it ends a preparation or does nothing"),
    ("data.cache", "where files lie"),
    ("model.recompute", "what is computed twice is computed alike"),
    ("model.recompute_budget", "likewise"),
    ("checkpoint.every", "saving observes; where a roll-back leads is a part of the state"),
    ("checkpoint.keep", "saving observes"),
    ("checkpoint.keep_every", "saving observes"),
    ("checkpoint.keep_best", "saving observes"),
    ("checkpoint.memory_every", "as checkpoint.every"),
    ("recovery.bad_updates", "it acts on bad updates only, and what it did is a part of the state"),
    ("recovery.rollbacks", "as recovery.bad_updates"),
    ("recovery.skip_data", "as recovery.bad_updates"),
    ("recovery.window", "as recovery.bad_updates"),
    ("recovery.loss_z", "as recovery.bad_updates"),
    ("recovery.norm_z", "as recovery.bad_updates"),
    ("evaluate.every", "evaluating observes"),
    ("evaluate.batches", "evaluating observes"),
    ("sample.every", "sampling observes, with random numbers of its own"),
    ("sample.prompt", "sampling observes"),
    ("sample.tokens", "sampling observes"),
    ("sample.temperature", "sampling observes"),
    ("sample.top_k", "sampling observes"),
    ("sample.top_p", "sampling observes"),
    ("sample.seed", "sampling observes, with random numbers of its own"),
    ("log.fingerprints", "logging observes"),
    ("web.address", "serving observes"),
];

/// Keys of a run's identity that came after checkpoints which do not name them, each with the value
/// that builds before had. A key that is new gets a line here, or a checkpoint of yesterday could
/// not go on (`src/config/tests/identity.rs` has the list of the others).
const CAME_LATER: &[(&str, &str)] = &[
    ("data.packing", "\"concatenate\""),
    ("model.initialisation", "\"gpt2\""),
    ("optimizer.moments", "\"f32\""),
    ("optimizer.rule", "\"adamw\""),
];

impl Config {
    /// What a checkpoint that does not name a key of the identity was made with.
    pub fn assumed() -> BTreeMap<String, String> {
        CAME_LATER.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// Reads a file, applies `--set` arguments (`section.key=value`) in order, checks every key and
    /// what keys say about each other, and fills in what depends on other keys.
    ///
    /// # Errors
    /// [`ConfigError`]: one sentence with file, line, key and what was expected.
    pub fn load(path: &Path, sets: &[String]) -> Result<Self, ConfigError> {
        Ok(Self::load_located(path, sets)?.0)
    }

    /// As [`Self::load`], and where every key was given.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_located(path: &Path, sets: &[String]) -> Result<(Self, Origins), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            place: Place::File(path.to_owned()),
            key: None,
            problem: format!("cannot read the configuration: {error}"),
        })?;
        Self::parse_located(&text, path, sets)
    }

    /// As [`Self::load`], from text; `path` is only for errors.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(text: &str, path: &Path, sets: &[String]) -> Result<Self, ConfigError> {
        Ok(Self::parse_located(text, path, sets)?.0)
    }

    fn parse_located(
        text: &str,
        path: &Path,
        sets: &[String],
    ) -> Result<(Self, Origins), ConfigError> {
        let mut document = load::Document::parse(text, path)?;
        for argument in sets {
            document.set(argument)?;
        }
        let mut config = document.read()?;
        document.adopt(&mut config)?;
        config.resolve();
        config.validate().map_err(|invalid| document.locate(invalid))?;
        Ok((config, document.origins()))
    }

    /// Writes out defaults that depend on other keys, so that the stored form says everything.
    fn resolve(&mut self) {
        self.batch.resolve();
        self.model.resolve();
    }

    /// Checks everything that needs neither data nor device.
    ///
    /// # Errors
    /// The first key with an unusable value.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.run.validate()?;
        self.data.validate().map_err(|error| match error {
            DataError::Config { key, problem } => Invalid::new(key, problem),
            other => Invalid::new("data", other.to_string()),
        })?;
        self.batch.validate()?;
        self.model.validate()?;
        self.validate_tracks()?;
        self.validate_tasks()?;
        self.optimizer.validate()?;
        self.schedule.validate(self.run.steps)?;
        self.checkpoint.validate()?;
        self.recovery.validate()?;
        self.evaluate.validate()?;
        self.sample.validate()?;
        self.web.validate()?;
        self.validate_across()
    }

    fn validate_across(&self) -> Result<(), Invalid> {
        let (ranks, lanes) = (self.run.ranks, self.batch.lanes());
        if ranks > lanes {
            let problem = format!("expected at most batch.lanes = {lanes}, got {ranks}");
            return Err(Invalid::new("run.ranks", problem)
                .with("batch.lanes")
                .with("batch.global")
                .with("batch.micro"));
        }
        if self.sample.every > 0 && !self.writes() {
            let every = self.sample.every;
            let problem = format!(
                "expected 0, because no model of this run learns to go on with a text, got {every}"
            );
            return Err(Invalid::new("sample.every", problem).with("objective.kind"));
        }
        if !self.tasks.is_empty() && self.data.validation_fraction == 0.0 {
            let problem = "expected none, because data.validation_fraction = 0 holds nothing out";
            return Err(Invalid::new("tasks", problem).with("data.validation_fraction"));
        }
        if self.evaluate.every > 0 && self.data.validation_fraction == 0.0 {
            let every = self.evaluate.every;
            let problem = format!(
                "expected 0, because data.validation_fraction = 0 holds nothing out, got {every}"
            );
            return Err(Invalid::new("evaluate.every", problem).with("data.validation_fraction"));
        }
        let length = self.batch.sequence_length;
        if let Some(most) = self.model.family.get().max_positions().filter(|most| length > *most) {
            let problem = format!("expected at most model.max_positions = {most}, got {length}");
            return Err(Invalid::new("batch.sequence_length", problem).with("model.max_positions"));
        }
        self.validate_groups()
    }

    fn validate_groups(&self) -> Result<(), Invalid> {
        if self.optimizer.groups.is_empty() {
            return Ok(());
        }
        let smallest = ModelSize { vocabulary: 1, max_positions: 1 };
        let built = Composition::new(self, smallest);
        let built = built.map_err(|error| Invalid::new("model", error.to_string()))?;
        self.optimizer.validate_names(built.variables.parameters())
    }

    /// The resolved form. Reading it again gives an equal configuration.
    ///
    /// # Panics
    /// Never for a configuration that [`Self::validate`] accepts.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every key has a form in TOML")
    }

    /// What decides the numbers of a run, by key. Ranks, places and intervals are not part of it,
    /// and neither is the text itself: that is the prepared data's identity.
    ///
    /// # Panics
    /// As [`Self::to_toml`].
    pub fn identity(&self) -> BTreeMap<String, String> {
        let mut table = Table::try_from(self).expect("every key has a form in TOML");
        let sources = table.get_mut("data").and_then(|data| data.get_mut("sources"));
        for source in sources.and_then(Value::as_array_mut).into_iter().flatten() {
            // As of `data.text`: only what is done with a source counts.
            let source = source.as_table_mut().into_iter();
            let is_text = |key: &str| {
                matches!(key, "text" | "field" | "url_field" | "clean" | "bad_records_max")
            };
            source.for_each(|source| source.retain(|key, _| !is_text(key)));
        }
        let parts = table.get_mut("model").and_then(|model| model.get_mut("parts"));
        for (_, part) in parts.and_then(Value::as_table_mut).into_iter().flatten() {
            // What first values were is a part of the state.
            part.as_table_mut().and_then(|part| part.remove("from"));
        }
        let mut keys = BTreeMap::new();
        for (section, value) in &table {
            for (key, value) in value.as_table().into_iter().flatten() {
                keys.insert(format!("{section}.{key}"), value.to_string());
            }
        }
        if let Some(tracks) = table.get("tracks") {
            keys.insert("tracks".to_owned(), tracks.to_string());
        }
        for (key, _reason) in WITHOUT_EFFECT {
            keys.remove(*key);
        }
        let horizon = self.schedule.horizon(self.run.steps);
        match horizon {
            Some(steps) => keys
                .insert("schedule.steps".to_owned(), Value::String(steps.to_string()).to_string()),
            None => keys.remove("schedule.steps"),
        };
        keys
    }

    /// blake3 over [`Self::identity`], in hexadecimal.
    ///
    /// # Panics
    /// As [`Self::to_toml`].
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (key, value) in self.identity() {
            hasher.update(format!("{key} = {value}\n").as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}
