//! A folder that somebody else has stored as a run that can be trained: a checkpoint of step 0 made
//! of its tensors, from which a resume does the rest.
//!
//! Names, shapes and types are checked before memory is taken, values while they are read, and the
//! run folder appears when all of it is on disk.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use octet_actors::checkpoint::{About, Store, StoreSettings};
use octet_actors::contract::Workload;
use octet_actors::outside::{Clock, Disk, LocalDisk, SystemClock};
use octet_actors::snapshot::{Slot, SlotFacts, SnapshotLayout, SnapshotSlots};
use octet_actors::transfer::{initialise, initialise_rest, write_parameter};
use octet_kernels::dtype::DType;
use octet_kernels::graph::Init;
use serde_json::json;

use super::families::rows_of;
use super::matching;
use super::record::{FOLDER, RECORD, Record, computed_keys, digest};
use super::source::{self, Found};
use super::staging::{Staging, check_free};
use super::table::{Order, Row, reversed, transposed};
use super::tokenizer::{name_of, pretty};
use super::vocabulary::{extend, fill_with_mean};
use crate::beginning::begun;
use crate::config::Config;
use crate::data::Tokenizer;
use crate::experiment::Experiment;
use crate::failure::{Failure, INTERRUPTED};
use crate::models::dense::StorageType;
use crate::models::{DenseConfig, EncoderConfig, FamilyConfig, RecomputeConfig};
use crate::objectives::ObjectiveConfig;
use crate::provenance;
use crate::run_data::tokenizer_folder;

/// Rows of an embedding that grows are a multiple of this.
const ROWS_MULTIPLE: usize = 64;

/// What is to be imported.
#[derive(Debug, Clone, Default)]
pub struct Import {
    /// The folder or file.
    pub from: PathBuf,
    /// The run folder to make.
    pub run: PathBuf,
    /// How it is to be trained; what it says of the model is replaced.
    pub recipe: Option<PathBuf>,
    /// Keys that are set on top of the recipe.
    pub sets: Vec<String>,
    /// Special tokens that the vocabulary gets.
    pub tokens: Vec<String>,
}

/// What was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The family, or the kind of file.
    pub kind: &'static str,
    /// Numbers that are trained.
    pub parameters: usize,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// Tokens of the tokenizer, if there is one.
    pub tokens: Option<usize>,
    /// Digest of the first state.
    pub digest: String,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Imports a model. `stop` is asked now and then whether to give up.
///
/// # Errors
/// [`Failure`]; nothing is left then.
pub fn import(job: &Import, stop: &dyn Fn() -> bool) -> Result<Imported, Failure> {
    check_free(&LocalDisk, &job.run)?;
    let mut found = source::find(&job.from)?;
    let words = Words::of(&mut found, &job.tokens)?;
    let config = configuration(&found, &words, job)?;
    let rows = rows_of_file(&found, &config)?;
    matching::check(&found, &rows)?;
    let experiment = {
        // Chosen for a run's machine; here nothing runs.
        let mut config = config.clone();
        config.model.recompute = RecomputeConfig::default();
        config.model.recompute_budget = None;
        begun(Experiment::new(&config, words.rows, None)?, None, words.tokenizer.as_ref())?
    };
    let layout = Arc::new(SnapshotLayout::of(&experiment));
    let slots = SnapshotSlots::create(layout.bytes())?;
    let mut slot = slots.slot(0, &layout);
    // A recipe may have other models beside the one that is imported.
    match experiment.variables().parameters().len() == rows.len() {
        true => initialise_rest(&experiment, &slot),
        false => initialise(&experiment, &slot),
    }
    for row in &rows {
        fill(&found, &words, row, &mut slot, stop)?;
    }
    check_tied_head(&found, &rows, &mut slot, stop)?;
    let of_run = experiment.variables().parameters();
    for own in of_run {
        if let Init::SameAs(other) = own.init
            && rows.iter().any(|row| row.ours == of_run[other.0].name)
        {
            let values = parameter(&mut slot, &of_run[other.0].name).to_vec();
            write_parameter(&slot, &own.name, &values);
        }
    }
    let cursor = json!({ "step": 0, "samples": 0, "tokens": 0 });
    slot.commit_with(0, &cursor, &SlotFacts::default(), 1)?;
    let digest = publish(job, &found, &words, &config, &slot)?;
    Ok(Imported {
        kind: found.kind,
        parameters: rows.iter().map(|row| row.shape.iter().product::<usize>()).sum(),
        vocabulary: words.rows,
        tokens: words.tokenizer.as_ref().map(Tokenizer::vocabulary),
        digest,
        notes: found.notes,
    })
}

/// The tokenizer, and what it makes of the rows of an embedding.
struct Words {
    tokenizer: Option<Tokenizer>,
    /// Rows that tokens had before any were added.
    known: usize,
    /// Rows of new tokens.
    new: Range<usize>,
    /// Rows in all.
    rows: usize,
}

impl Words {
    fn of(found: &mut Found, tokens: &[String]) -> Result<Self, Failure> {
        let path = found.path.join("tokenizer.json");
        let refused = |what: String| Failure::user(format!("{}: {what}", path.display()));
        let Some(json) = found.tokenizer.take() else {
            let (known, new) = (found.vocabulary, 0..0);
            return match tokens.is_empty() {
                true => Ok(Self { tokenizer: None, known, new, rows: found.vocabulary }),
                false => Err(refused("expected one that --add-token can extend".to_owned())),
            };
        };
        let read = |json: Vec<u8>, end: Option<&str>| Tokenizer::from_json(&path, json, end);
        let plain = read(json.clone(), None)?;
        let known = plain.vocabulary();
        if known > found.vocabulary {
            let rows = found.vocabulary;
            return Err(refused(format!("has {known} tokens, and the embedding {rows} rows")));
        }
        // Where no usual name ends a document, the model's own end does.
        let ends = plain.end_of_document().is_none();
        let own = found.tokens.get("eos_token_id").and_then(serde_json::Value::as_u64);
        let own = own.filter(|_| ends).and_then(|id| name_of(&json, u32::try_from(id).ok()?));
        let json = match tokens.is_empty() {
            true => json,
            false => extend(&json, known, tokens).map_err(refused)?,
        };
        let tokenizer = read(json, own.as_deref())?;
        let new = known..known + tokens.len();
        let rows = match new.end > found.vocabulary {
            true => new.end.next_multiple_of(ROWS_MULTIPLE),
            false => found.vocabulary,
        };
        Ok(Self { tokenizer: Some(tokenizer), known, new, rows })
    }
}

/// The configuration of the run.
fn configuration(found: &Found, words: &Words, job: &Import) -> Result<Config, Failure> {
    let mut config = match &job.recipe {
        Some(recipe) => Config::load(recipe, &job.sets)?,
        None => Config::parse("", Path::new("--set"), &job.sets)?,
    };
    let mut types = found.tensors.iter().map(|(_, stored)| stored.dtype);
    let narrow = types.all(|dtype| dtype == Some(DType::Bf16));
    let stored = if narrow { StorageType::Bf16 } else { StorageType::F32 };
    let with_recipe = job.recipe.is_some();
    let model = match (found.model.clone(), &config.model.family) {
        (FamilyConfig::Dense(model), FamilyConfig::Dense(recipe)) if with_recipe => {
            let DenseConfig { dropout, embedding_dropout, dtype, .. } = *recipe;
            FamilyConfig::Dense(DenseConfig { dropout, embedding_dropout, dtype, ..model })
        }
        (FamilyConfig::Encoder(model), FamilyConfig::Encoder(recipe)) if with_recipe => {
            let EncoderConfig { dropout, dtype, .. } = *recipe;
            FamilyConfig::Encoder(EncoderConfig { dropout, dtype, ..model })
        }
        (FamilyConfig::Dense(model), _) => {
            FamilyConfig::Dense(DenseConfig { dtype: stored, ..model })
        }
        (FamilyConfig::Encoder(model), _) => {
            FamilyConfig::Encoder(EncoderConfig { dtype: stored, ..model })
        }
    };
    if !with_recipe {
        let longest = model.get().max_positions().unwrap_or(usize::MAX);
        config.batch.sequence_length = config.batch.sequence_length.min(longest);
        config.objective = ObjectiveConfig::teaching(found.ability).ok_or_else(|| {
            let path = found.path.display();
            Failure::user(format!(
                "{path}: expected a recipe (--config FILE) whose objective trains such a model, \
                 with the other models that it needs in [model.parts]"
            ))
        })?;
    }
    config.model.family = model;
    config.model.vocabulary = Some(words.rows);
    if words.tokenizer.is_some() {
        let folder = tokenizer_folder(&job.run);
        config.data.tokenizer = folder.display().to_string();
        // The stored tokenizer knows both.
        (config.data.split, config.data.end_of_document) = (None, None);
    }
    let path = found.path.display();
    let refused = |key: &str, problem: &str| Failure::user(format!("{path}: {key}: {problem}"));
    config.validate().map_err(|invalid| refused(&invalid.keys[0], &invalid.problem))?;
    Ok(Config::parse(&config.to_toml(), &job.run.join("config.toml"), &[])?)
}

/// The tensors of the parameters as the file must have them: without rows for new tokens.
fn rows_of_file(found: &Found, config: &Config) -> Result<Vec<Row>, Failure> {
    let mut rows = rows_of(found.lines, config)?;
    for row in rows.iter_mut().filter(|row| row.tokens) {
        row.parts[0].shape[0] = found.vocabulary;
    }
    Ok(rows)
}

/// Fills one parameter.
fn fill(
    found: &Found,
    words: &Words,
    row: &Row,
    slot: &mut Slot,
    stop: &dyn Fn() -> bool,
) -> Result<(), Failure> {
    let target = parameter(slot, &row.ours);
    let mut start = 0;
    for part in &row.parts {
        let into = &mut target[start..start + part.elements()];
        start += part.elements();
        let Some(stored) = found.tensors.get(&part.name) else {
            into.fill(0.0);
            continue;
        };
        let turns = part.order != Order::Same;
        let mut whole = vec![0.0; if turns { part.elements() } else { 0 }];
        let buffer = if turns { &mut whole[..] } else { &mut *into };
        matching::read_all(&found.tensors, &part.name, stored, |first, values| {
            buffer[first..first + values.len()].copy_from_slice(values);
            go_on(stop)
        })?;
        match part.order {
            Order::Same => {}
            Order::Transposed => into.copy_from_slice(&transposed(&whole, part.shape[1])),
            Order::Reversed => into.copy_from_slice(&reversed(&whole, part.columns())),
            Order::Turned(_) => unreachable!("no folder that is read turns heads"),
        }
    }
    if row.tokens {
        let width = row.parts[0].columns();
        let filled = words.new.clone().chain(found.vocabulary.max(words.new.end)..words.rows);
        fill_with_mean(target, width, words.known, filled);
    }
    Ok(())
}

/// A parameter of the slot, to fill.
fn parameter<'a>(slot: &'a mut Slot, name: &str) -> &'a mut [f32] {
    let tensors = slot.layout().tensors();
    let tensor = tensors.iter().find(|tensor| tensor.name == name);
    let tensor = tensor.expect("every parameter is in the slot");
    assert_eq!(tensor.dtype, DType::F32, "{name} is trained");
    // SAFETY: the slot is not committed and known to nobody else, and borrowed by one slice.
    unsafe { slot.tensor(tensor).as_mut_slice() }
}

fn go_on(stop: &dyn Fn() -> bool) -> Result<(), Failure> {
    match stop() {
        false => Ok(()),
        true => {
            let what = "the import was interrupted; nothing of it was kept".to_owned();
            Err(Failure { code: INTERRUPTED, what })
        }
    }
}

/// A head that is stored although it is the embedding must be the same.
fn check_tied_head(
    found: &Found,
    rows: &[Row],
    slot: &mut Slot,
    stop: &dyn Fn() -> bool,
) -> Result<(), Failure> {
    let name = matching::head(found);
    let Some(stored) = found.tensors.get(&name).filter(|_| found.is_tied()) else {
        return Ok(());
    };
    let embedding = &matching::embedding(rows).name;
    let target = parameter(slot, "embedding.weight");
    matching::read_all(&found.tensors, &name, stored, |first, values| {
        if target[first..first + values.len()] != *values {
            let path = found.path.display();
            return Err(Failure::user(format!(
                "{path}: expected {name} to be {embedding}, as its configuration says, got another"
            )));
        }
        go_on(stop)
    })
}

/// Writes the run folder; gives the digest of its state.
fn publish(
    job: &Import,
    found: &Found,
    words: &Words,
    config: &Config,
    slot: &Slot,
) -> Result<String, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let staging = Staging::begin(&*disk, &job.run)?;
    staging.write("config.toml", config.to_toml().as_bytes())?;
    if let Some(tokenizer) = &words.tokenizer {
        let folder = tokenizer_folder(&staging.path(""));
        disk.create_folders(&folder).map_err(Failure::world)?;
        tokenizer.save(&folder)?;
    }
    disk.create_folders(&staging.path(FOLDER)).map_err(Failure::world)?;
    for (name, bytes) in &found.kept {
        staging.write(&format!("{FOLDER}/{name}"), bytes)?;
    }
    let from = found.path.file_name().unwrap_or(found.path.as_os_str());
    let record = Record {
        from: from.to_string_lossy().into_owned(),
        kind: found.kind.to_owned(),
        model: computed_keys(config),
        tokenizer: words.tokenizer.as_ref().map(digest),
        tokens: found.tokens.clone(),
    };
    let record = serde_json::to_value(record).map_err(Failure::ours)?;
    staging.write(&format!("{FOLDER}/{RECORD}"), &pretty(&record))?;
    let checkpoints = staging.path("checkpoints");
    disk.create_folders(&checkpoints).map_err(Failure::world)?;
    let store = Store::new(disk.clone(), checkpoints, StoreSettings::default());
    let about = About {
        config_digest: config.digest(),
        provenance: provenance::here(),
        saved_unix_ms: SystemClock::new().unix_ms(),
        ..About::default()
    };
    let saved = store.save(&slot.view()?, &about).map_err(Failure::world)?;
    staging.publish()?;
    Ok(saved.digest)
}
