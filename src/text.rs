//! Prepared text as a source of records: which sample is which window of which source, and its
//! rows.

use std::sync::Arc;

use octet_actors::contract::Record;
use octet_kernels::graph::Program;
use serde::Serialize;

use crate::config::Config;
use crate::data::{
    DataError, Mixture, Prepared, PreparedSource, SampleRule, Samples, Tokenizer, WindowRows,
    Windows,
};

#[cfg(test)]
mod tests;

/// The label of a row that has no target.
const IGNORED: i32 = -1;

/// All sources of a corpus, opened, with their orders.
pub struct Text {
    tokenizer: Arc<Tokenizer>,
    sources: Vec<Source>,
    mixture: Mixture,
    sequence_length: usize,
    identity: String,
}

struct Source {
    name: String,
    train: Samples,
    held_out: Option<Samples>,
    bytes_per_token: f64,
}

/// The held-out split of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOut {
    /// The source's name; empty for `data.text`.
    pub name: String,
    /// Windows that do not overlap.
    pub windows: u64,
    /// UTF-8 bytes per token of its text.
    pub bytes_per_token: f64,
}

/// What a source has given to the training so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Consumed {
    /// The source's name; empty for `data.text`.
    pub name: String,
    /// Samples.
    pub samples: u64,
    /// Tokens, padding included.
    pub tokens: u64,
    /// Epochs: how often each window was used.
    pub epochs: f64,
}

impl Text {
    /// Opens prepared data.
    ///
    /// # Errors
    /// [`DataError`]: a shard that is gone or damaged, a split shorter than one sequence, or
    /// sources that end before the run does.
    pub fn open(config: &Config, prepared: Prepared) -> Result<Self, DataError> {
        let sources = prepared.sources.iter().map(|source| open(config, &prepared, source));
        let sources = sources.collect::<Result<Vec<_>, _>>()?;
        let limits: Vec<(f64, Option<u64>)> = config
            .data
            .texts()
            .iter()
            .zip(&sources)
            .map(|(given, source)| {
                let samples = |epochs: u64| source.train.per_epoch().saturating_mul(epochs);
                (given.weight, given.max_epochs.map(samples))
            })
            .collect();
        let mixture = Mixture::new(&limits);
        let wanted = config.batch.samples_before(config.run.steps);
        if let Some(samples) = mixture.samples().filter(|&samples| samples < wanted) {
            return Err(DataError::SourcesEnd { samples, wanted });
        }
        Ok(Self {
            sources,
            mixture,
            sequence_length: config.batch.sequence_length,
            identity: prepared.identity,
            tokenizer: Arc::new(prepared.tokenizer),
        })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// blake3 of tokens and tokenizer: part of what a resume must find again.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The held-out splits, in the order of the sources; none if nothing is held out.
    pub fn held_out(&self) -> Vec<HeldOut> {
        let held_out = |source: &Source| {
            let windows = source.held_out.as_ref()?.per_epoch();
            let (name, bytes_per_token) = (source.name.clone(), source.bytes_per_token);
            Some(HeldOut { name, windows, bytes_per_token })
        };
        self.sources.iter().filter_map(held_out).collect()
    }

    /// What each source has given to the first `samples` of the training.
    pub fn consumed(&self, samples: u64) -> Vec<Consumed> {
        let counts = self.mixture.counts(samples);
        let consumed = |(source, samples): (&Source, u64)| Consumed {
            name: source.name.clone(),
            samples,
            tokens: samples * self.sequence_length as u64,
            epochs: samples as f64 / source.train.per_epoch() as f64,
        };
        self.sources.iter().zip(counts).map(consumed).collect()
    }

    /// Targets of a training sample.
    ///
    /// # Errors
    /// [`DataError`] when a shard cannot be read.
    pub fn train_targets(&self, sample: u64) -> Result<u64, DataError> {
        let (source, sample) = self.place(sample)?;
        self.sources[source].train.targets(sample)
    }

    /// The source of a training sample, and its number there.
    fn place(&self, sample: u64) -> Result<(usize, u64), DataError> {
        let samples = self.mixture.samples().unwrap_or(u64::MAX);
        let ended = DataError::SourcesEnd { samples, wanted: sample.saturating_add(1) };
        self.mixture.at(sample).ok_or(ended)
    }

    /// Fills the token rows of a record with training samples `first..first + rows`.
    ///
    /// # Errors
    /// [`DataError`] when a shard cannot be read.
    pub fn fill_train(
        &self,
        first: u64,
        rows: usize,
        program: &Program,
        record: &mut Record<'_>,
    ) -> Result<(), DataError> {
        self.fill(rows, program, record, |row, rows| self.fill_sample(first + row, rows).map(drop))
    }

    /// Fills the rows of one training sample and returns its targets.
    ///
    /// # Errors
    /// [`DataError`] when a shard cannot be read.
    pub fn fill_sample(&self, sample: u64, rows: WindowRows<'_>) -> Result<u64, DataError> {
        let (source, sample) = self.place(sample)?;
        self.sources[source].train.fill(sample, rows)
    }

    /// Fills the token rows of a record with windows `first..first + rows` of held-out split
    /// number `split` of [`Self::held_out`]. Rows beyond the last window have no targets.
    ///
    /// # Errors
    /// [`DataError`] when a shard cannot be read.
    pub fn fill_validation(
        &self,
        split: usize,
        first: u64,
        rows: usize,
        program: &Program,
        record: &mut Record<'_>,
    ) -> Result<(), DataError> {
        for name in ["tokens", "segments", "positions"] {
            record.field::<i32>(program, name).fill(0);
        }
        record.field::<i32>(program, "labels").fill(IGNORED);
        let mut splits = self.sources.iter().filter_map(|source| source.held_out.as_ref());
        let Some(samples) = splits.nth(split) else { return Ok(()) };
        let last = samples.per_epoch().min(first + rows as u64);
        let rows = last.saturating_sub(first) as usize;
        self.fill(rows, program, record, |row, rows| samples.fill(first + row, rows).map(drop))
    }

    /// Fills `rows` rows, each by its number.
    fn fill(
        &self,
        rows: usize,
        program: &Program,
        record: &mut Record<'_>,
        mut row_of: impl FnMut(u64, WindowRows<'_>) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let length = self.sequence_length;
        let [tokens, labels, segments, positions] =
            record.fields::<i32, 4>(program, ["tokens", "labels", "segments", "positions"]);
        for row in 0..rows {
            let part = row * length..(row + 1) * length;
            let rows = WindowRows {
                tokens: &mut tokens[part.clone()],
                labels: &mut labels[part.clone()],
                segments: &mut segments[part.clone()],
                positions: &mut positions[part],
            };
            row_of(row as u64, rows)?;
        }
        Ok(())
    }
}

/// Opens one source.
fn open(
    config: &Config,
    prepared: &Prepared,
    source: &PreparedSource,
) -> Result<Source, DataError> {
    let identity = match source.name.as_str() {
        "" => prepared.identity.clone(),
        name => format!("{} {name}", prepared.identity),
    };
    let rule = |windows| SampleRule {
        seed: config.run.seed,
        identity: &identity,
        layout: config.data.window_layout(config.batch.sequence_length),
        packing: config.data.packing,
        windows,
        padding: prepared.tokenizer.end_of_document().unwrap_or(0) as i32,
    };
    let named = |split: &str, advice: &'static str| {
        let of = if source.name.is_empty() { "" } else { " of data.sources: " };
        let what = format!("the {split} split{of}{}", source.name);
        move |error| match error {
            // No sequence is short enough.
            DataError::TooShort { tokens: tokens @ ..2, .. } => {
                let key = if source.name.is_empty() { "data.text" } else { "data.sources" };
                let problem = format!(
                    "expected at least 2 tokens of {what}, got {tokens}; {}",
                    advice.replace(" or a shorter sequence", "")
                );
                DataError::Config { key, problem }
            }
            DataError::TooShort { tokens, sequence_length, .. } => {
                DataError::TooShort { what, advice, tokens, sequence_length }
            }
            other => other,
        }
    };
    let train = Samples::open(&source.train, &rule(Windows::Shuffled))
        .map_err(named("training", "give more text or a shorter sequence"))?;
    let held_out = if source.validation.is_empty() || config.evaluate.every == 0 {
        None
    } else {
        let advice = "give more text, raise data.validation_fraction or set evaluate.every = 0";
        let opened = Samples::open(&source.validation, &rule(Windows::Sequential));
        Some(opened.map_err(named("validation", advice))?)
    };
    let bytes_per_token = source.counts.bytes_per_token();
    Ok(Source { name: source.name.clone(), train, held_out, bytes_per_token })
}
