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
    /// `None` for a text that is only evaluated.
    training: Option<Training>,
    held_out: Vec<(HeldOut, Samples)>,
    /// By token: UTF-8 bytes of its text.
    token_bytes: Vec<u32>,
    sequence_length: usize,
    identity: String,
}

/// What a run learns from.
struct Training {
    sources: Vec<(String, Samples)>,
    mixture: Mixture,
}

/// The held-out split of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldOut {
    /// The source's name; empty for `data.text`.
    pub name: String,
    /// Windows that are measured: evenly spread over all, which do not overlap.
    pub windows: u64,
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
    /// [`DataError`]: a shard that is gone or damaged, a split that is too short, or sources that
    /// end before the run does.
    pub fn open(config: &Config, prepared: Prepared) -> Result<Self, DataError> {
        let training = Training::open(config, &prepared)?;
        let held_out =
            if config.evaluate.every == 0 { vec![] } else { held_out(config, &prepared)? };
        Ok(Self::new(config, prepared, Some(training), held_out))
    }

    /// Opens the held-out splits only.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn held_out_only(config: &Config, prepared: Prepared) -> Result<Self, DataError> {
        let held_out = held_out(config, &prepared)?;
        Ok(Self::new(config, prepared, None, held_out))
    }

    fn new(
        config: &Config,
        prepared: Prepared,
        training: Option<Training>,
        held_out: Vec<(HeldOut, Samples)>,
    ) -> Self {
        Self {
            training,
            held_out,
            token_bytes: prepared.tokenizer.token_bytes(),
            sequence_length: config.batch.sequence_length,
            identity: prepared.identity,
            tokenizer: Arc::new(prepared.tokenizer),
        }
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
    pub fn held_out(&self) -> impl Iterator<Item = &HeldOut> {
        self.held_out.iter().map(|(split, _)| split)
    }

    /// What each source has given to the first `samples` of the training.
    pub fn consumed(&self, samples: u64) -> Vec<Consumed> {
        let Some(Training { sources, mixture }) = &self.training else { return vec![] };
        let consumed = |((name, source), samples): (&(String, Samples), u64)| Consumed {
            name: name.clone(),
            samples,
            tokens: samples * self.sequence_length as u64,
            epochs: samples as f64 / source.per_epoch() as f64,
        };
        sources.iter().zip(mixture.counts(samples)).map(consumed).collect()
    }

    /// Targets of a training sample.
    ///
    /// # Errors
    /// [`DataError`] when a shard cannot be read.
    pub fn train_targets(&self, sample: u64) -> Result<u64, DataError> {
        let (source, sample) = self.place(sample)?;
        source.targets(sample)
    }

    /// The source of a training sample, and its number there.
    fn place(&self, sample: u64) -> Result<(&Samples, u64), DataError> {
        let mixture = self.training.as_ref().map(|training| &training.mixture);
        let samples = mixture.map_or(0, |mixture| mixture.samples().unwrap_or(u64::MAX));
        let ended = DataError::SourcesEnd { samples, wanted: sample.saturating_add(1) };
        let Some(Training { sources, mixture }) = &self.training else { return Err(ended) };
        mixture.at(sample).map(|(source, sample)| (&sources[source].1, sample)).ok_or(ended)
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
        source.fill(sample, rows)
    }

    /// Fills the token rows of a record with measured windows `first..first + rows` of held-out
    /// split number `split` of [`Self::held_out`], and the bytes of text of every target. Rows beyond
    /// the last window have no targets.
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
        record.field::<i32>(program, "bytes").fill(0);
        let Some((split, samples)) = self.held_out.get(split) else { return Ok(()) };
        let last = split.windows.min(first + rows as u64);
        let rows = last.saturating_sub(first) as usize;
        self.fill(rows, program, record, |row, rows| {
            let window = spread(first + row, split.windows, samples.per_epoch());
            samples.fill(window, rows).map(drop)
        })?;
        let [bytes, labels] = record.fields::<i32, 2>(program, ["bytes", "labels"]);
        for (bytes, &label) in bytes.iter_mut().zip(&*labels) {
            let token = usize::try_from(label).ok();
            *bytes = token.map_or(0, |token| self.token_bytes[token] as i32);
        }
        Ok(())
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

impl Training {
    fn open(config: &Config, prepared: &Prepared) -> Result<Self, DataError> {
        let open = |source: &PreparedSource| {
            let opened = open(config, prepared, source, Windows::Shuffled)?;
            Ok((source.name.clone(), opened))
        };
        let sources = prepared.sources.iter().map(open).collect::<Result<Vec<_>, DataError>>()?;
        let limits: Vec<(f64, Option<u64>)> = config
            .data
            .texts()
            .iter()
            .zip(&sources)
            .map(|(given, (_, source))| {
                let samples = |epochs: u64| source.per_epoch().saturating_mul(epochs);
                (given.weight, given.max_epochs.map(samples))
            })
            .collect();
        let mixture = Mixture::new(&limits);
        let wanted = config.batch.samples_before(config.run.steps);
        if let Some(samples) = mixture.samples().filter(|&samples| samples < wanted) {
            return Err(DataError::SourcesEnd { samples, wanted });
        }
        Ok(Self { sources, mixture })
    }
}

/// Opens the held-out splits.
fn held_out(config: &Config, prepared: &Prepared) -> Result<Vec<(HeldOut, Samples)>, DataError> {
    let micro = config.batch.micro as u64;
    let most = config.evaluate.batches.map_or(u64::MAX, |batches| batches.saturating_mul(micro));
    let sources = prepared.sources.iter().filter(|source| !source.validation.is_empty());
    let open = |source: &PreparedSource| {
        let samples = open(config, prepared, source, Windows::Sequential)?;
        let windows = samples.per_epoch().min(most);
        Ok((HeldOut { name: source.name.clone(), windows }, samples))
    };
    sources.map(open).collect()
}

/// The window that is measured as number `number` of `measured`, spread over `windows`.
fn spread(number: u64, measured: u64, windows: u64) -> u64 {
    (u128::from(number) * u128::from(windows) / u128::from(measured)) as u64
}

/// Opens the training split of a source for shuffled windows, else the held-out split.
fn open(
    config: &Config,
    prepared: &Prepared,
    source: &PreparedSource,
    windows: Windows,
) -> Result<Samples, DataError> {
    let identity = match source.name.as_str() {
        "" => prepared.identity.clone(),
        name => format!("{} {name}", prepared.identity),
    };
    let rule = SampleRule {
        seed: config.run.seed,
        identity: &identity,
        layout: config.data.window_layout(config.batch.sequence_length),
        packing: config.data.packing,
        windows,
        end_of_document: prepared.tokenizer.end_of_document(),
    };
    let (paths, split, advice) = match windows {
        Windows::Shuffled => (&source.train, "training", "give more text or a shorter sequence"),
        Windows::Sequential => (
            &source.validation,
            "validation",
            "give more text, raise data.validation_fraction or set evaluate.every = 0",
        ),
    };
    let of = if source.name.is_empty() { "" } else { " of data.sources: " };
    let what = format!("the {split} split{of}{}", source.name);
    Samples::open(paths, &rule).map_err(|error| match error {
        // No sequence is short enough.
        DataError::TooShort { tokens: tokens @ ..2, .. } => {
            let key = if source.name.is_empty() { "data.text" } else { "data.sources" };
            let advice = advice.replace(" or a shorter sequence", "");
            let problem = format!("expected at least 2 tokens of {what}, got {tokens}; {advice}");
            DataError::Config { key, problem }
        }
        DataError::TooShort { tokens, sequence_length, .. } => {
            DataError::TooShort { what, advice, tokens, sequence_length }
        }
        other => other,
    })
}
