//! What lies at a path: a shard, a checkpoint or a run, recognised by its contents.
//!
//! Reads only what is small: headers, manifests, the log. Prohibition: hashes no tensors (that is
//! what `verify` is for) and changes nothing.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use octet_actors::checkpoint;
use octet_actors::checkpoint::manifest::MANIFEST;
use octet_actors::outside::{Disk, LocalDisk};
use octet_actors::run_folder::log::for_each_line;
use octet_actors::telemetry::totals::{Summary, Totals};
use serde::Serialize;

use crate::composition::Composition;
use crate::config::{Config, TrackConfig};
use crate::data::{ShardSummary, shard};
use crate::failure::Failure;
use crate::look::{Holds, Run};
use crate::models::ModelSize;
use crate::run_data::DataPlace;
use crate::text::{Consumed, Text};
use crate::train::LOG;

#[cfg(test)]
mod tests;

/// What every shard begins with.
const SHARD: &[u8] = b"OCTSHARD";

/// What was found.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Inspected {
    /// A file of tokens.
    Shard(ShardSummary),
    /// The folder of a checkpoint.
    Checkpoint(checkpoint::Summary),
    /// A run folder.
    Run(Box<RunSummary>),
}

/// A run in short.
#[derive(Debug, Serialize)]
pub struct RunSummary {
    /// Its folder.
    pub path: PathBuf,
    /// What it is configured to be.
    pub config: ConfigSummary,
    /// What was edited since the run has written it, if anything was.
    pub edited: Option<String>,
    /// What its log adds up to.
    pub log: Summary,
    /// What each source of text has given, if the prepared data are still there.
    pub sources: Vec<Consumed>,
    /// By step.
    pub checkpoints: Vec<CheckpointLine>,
}

/// A configuration in short.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConfigSummary {
    /// Digest of what decides the numbers.
    pub digest: String,
    /// Steps of the whole run.
    pub steps: u64,
    /// Ranks.
    pub ranks: usize,
    /// Tokens of a step.
    pub tokens_per_step: usize,
    /// Tokens of a sequence.
    pub sequence_length: usize,
    /// Rows of the embedding, if they are known.
    pub vocabulary: Option<usize>,
    /// `data.tokenizer`.
    pub tokenizer: String,
    /// `data.text`.
    pub text: String,
    /// Elements of all parameters, if the vocabulary is known.
    pub parameters: Option<usize>,
    /// `[[tracks]]`.
    pub tracks: Vec<TrackLine>,
    /// Where the prepared data lie and what they are, if the run says so.
    pub data: Option<DataPlace>,
}

/// A track in one line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrackLine {
    /// Its name.
    pub name: String,
    /// The kind of its objective.
    pub objective: String,
    /// Its model.
    pub model: String,
    /// Its weight, or its weights by step.
    pub weight: String,
}

/// A checkpoint in one line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckpointLine {
    /// Steps done.
    pub step: u64,
    /// Digest of the state; `None` if the manifest cannot be read.
    pub digest: Option<String>,
    /// Bytes of its files.
    pub bytes: u64,
    /// What is wrong at first sight; hashes are not looked at.
    pub damaged: Vec<String>,
}

/// Looks at a path.
///
/// # Errors
/// Bad input: nothing of ours is there, or it is damaged.
pub fn inspect(path: &Path) -> Result<Inspected, Failure> {
    let shown = path.display();
    if !path.exists() {
        return Err(Failure::user(format!("{shown}: there is nothing")));
    }
    if path.is_file() {
        if path.file_name().is_some_and(|name| name == MANIFEST) {
            return of_checkpoint(path.parent().unwrap_or(Path::new(".")));
        }
        return match begins_with(path, SHARD) {
            true => Ok(Inspected::Shard(shard::inspect(path).map_err(Failure::user)?)),
            false => Err(Failure::user(format!("{shown} is not a shard, a checkpoint or a run"))),
        };
    }
    if path.join(MANIFEST).exists() {
        return of_checkpoint(path);
    }
    if path.join("config.toml").exists() {
        return Ok(Inspected::Run(Box::new(of_run(path)?)));
    }
    Err(Failure::user(format!("{shown} is not a shard, a checkpoint or a run")))
}

fn begins_with(path: &Path, magic: &[u8]) -> bool {
    let mut head = vec![0; magic.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head == magic
}

fn of_checkpoint(folder: &Path) -> Result<Inspected, Failure> {
    checkpoint::inspect(&LocalDisk, folder).map(Inspected::Checkpoint).map_err(Failure::user)
}

fn track(track: &TrackConfig) -> TrackLine {
    let (name, model) = (track.name.clone(), track.model.clone());
    let objective = track.objective.name().to_owned();
    TrackLine { name, objective, model, weight: track.weight.shown() }
}

fn of_run(folder: &Path) -> Result<RunSummary, Failure> {
    let run = Run::open(folder, &[])?;
    let config = &run.config;
    let config = ConfigSummary {
        digest: config.digest(),
        steps: config.run.steps,
        ranks: config.run.ranks,
        tokens_per_step: config.batch.global_tokens(),
        sequence_length: config.batch.sequence_length,
        vocabulary: config.model.vocabulary,
        tokenizer: config.data.tokenizer.clone(),
        text: config.data.text.to_string(),
        parameters: parameters(config),
        tracks: config.tracks.iter().map(track).collect(),
        data: DataPlace::read(folder),
    };
    let checkpoints = checkpoints(&run)?;
    let mut totals = Totals::default();
    if LocalDisk.exists(&folder.join(LOG)) {
        for_each_line(&LocalDisk, &folder.join(LOG), |line| totals.add(&line))
            .map_err(Failure::user)?;
    }
    // The log may be ahead of what is saved.
    let of_log = |newest: &&CheckpointLine| newest.step == totals.step();
    let digest = checkpoints.last().filter(of_log).and_then(|newest| newest.digest.clone());
    let log = totals.summary(totals.wall_time_s(), digest);
    let newest = checkpoints.last().map(|newest| run.store().folder(newest.step));
    let newest = newest.and_then(|folder| checkpoint::inspect(&LocalDisk, &folder).ok());
    let samples = match newest.and_then(|newest| newest.cursor["samples"].as_u64()) {
        Some(samples) if run.config.tracks().len() == 1 => vec![samples],
        _ => run.config.samples_before(log.steps),
    };
    let sources = consumed(&run, &samples);
    let edited = run.hold_against_newest(Holds::All).err().map(|failure| failure.what);
    Ok(RunSummary { path: folder.to_owned(), config, edited, log, sources, checkpoints })
}

/// Elements of all parameters of a run.
fn parameters(config: &Config) -> Option<usize> {
    let max_positions = config.batch.sequence_length;
    let size = ModelSize { vocabulary: config.model.vocabulary?, max_positions };
    let composition = Composition::new(config, size).ok()?;
    let parameters = composition.variables.parameters().iter();
    Some(parameters.map(|parameter| parameter.elements()).sum())
}

/// What each source has given, by the samples of every track; nothing if that is not known.
fn consumed(run: &Run, samples: &[u64]) -> Vec<Consumed> {
    let prepared = DataPlace::read(&run.folder).and_then(|place| place.open());
    let text = prepared.and_then(|prepared| Text::open(&run.config, prepared).ok());
    text.map_or(vec![], |text| text.consumed(samples))
}

/// The checkpoints of a run, by step.
///
/// # Errors
/// The folder cannot be listed.
pub fn checkpoints(run: &Run) -> Result<Vec<CheckpointLine>, Failure> {
    let store = run.store();
    let steps = store.steps().map_err(Failure::world)?;
    let line = |step| match checkpoint::inspect(&LocalDisk, &store.folder(step)) {
        Ok(found) => CheckpointLine {
            step,
            digest: Some(found.digest),
            bytes: found.bytes,
            damaged: found.damaged,
        },
        Err(error) => {
            CheckpointLine { step, digest: None, bytes: 0, damaged: vec![error.to_string()] }
        }
    };
    Ok(steps.into_iter().map(line).collect())
}
