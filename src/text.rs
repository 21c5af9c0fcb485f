//! Prepared text as a source of records: which window is which sample, and its rows.

use std::sync::Arc;

use octet_actors::contract::Record;
use octet_kernels::graph::Program;

use crate::config::Config;
use crate::data::{
    DataError, Prepared, SampleOrder, TokenStream, Tokenizer, WindowLayout, WindowRows, Windows,
    count_targets, fill_window,
};

#[cfg(test)]
mod tests;

/// The label of a row that has no target.
const IGNORED: i32 = -1;

/// Both splits of a corpus, opened, with their orders.
pub struct Text {
    tokenizer: Arc<Tokenizer>,
    train: TokenStream,
    train_order: SampleOrder,
    held_out: Option<(TokenStream, SampleOrder)>,
    window: WindowLayout,
    bytes_per_token: f64,
    identity: String,
}

impl Text {
    /// Opens prepared data.
    ///
    /// # Errors
    /// [`DataError`]: a shard that is gone or damaged, or a split shorter than one sequence.
    pub fn open(config: &Config, prepared: Prepared) -> Result<Self, DataError> {
        let length = config.batch.sequence_length;
        let order = |stream: &TokenStream, windows| {
            let (seed, identity) = (config.run.seed, &prepared.identity);
            SampleOrder::new(seed, identity, stream.len(), length, windows)
        };
        let train = TokenStream::open(&prepared.train)?;
        let train_order = order(&train, Windows::Shuffled)?;
        let held_out = if prepared.validation.is_empty() || config.evaluate.every == 0 {
            None
        } else {
            let stream = TokenStream::open(&prepared.validation)?;
            let order = order(&stream, Windows::Sequential)?;
            Some((stream, order))
        };
        Ok(Self {
            train,
            train_order,
            held_out,
            window: config.data.window_layout(length),
            bytes_per_token: prepared.bytes_per_token(),
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

    /// UTF-8 bytes per token of held-out text.
    pub fn bytes_per_token(&self) -> f64 {
        self.bytes_per_token
    }

    /// Windows of the held-out split that do not overlap; 0 without one.
    pub fn validation_windows(&self) -> u64 {
        self.held_out.as_ref().map_or(0, |(_, order)| order.windows_per_epoch())
    }

    /// Targets of a training sample.
    ///
    /// # Errors
    /// [`DataError`] when a shard cannot be read.
    pub fn train_targets(&self, sample: u64) -> Result<u64, DataError> {
        count_targets(&self.train, self.train_order.start(sample), &self.window)
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
        let starts = (first..first + rows as u64).map(|sample| self.train_order.start(sample));
        self.fill(&self.train, starts, program, record)
    }

    /// Fills the token rows of a record with held-out windows `first..first + rows`. Rows beyond
    /// the last window have no targets.
    ///
    /// # Errors
    /// [`DataError`] when a shard cannot be read.
    pub fn fill_validation(
        &self,
        first: u64,
        rows: usize,
        program: &Program,
        record: &mut Record<'_>,
    ) -> Result<(), DataError> {
        for name in ["tokens", "segments", "positions"] {
            record.field::<i32>(program, name).fill(0);
        }
        record.field::<i32>(program, "labels").fill(IGNORED);
        let Some((stream, order)) = &self.held_out else { return Ok(()) };
        let last = order.windows_per_epoch().min(first + rows as u64);
        self.fill(stream, (first..last).map(|window| order.start(window)), program, record)
    }

    fn fill(
        &self,
        stream: &TokenStream,
        starts: impl Iterator<Item = u64>,
        program: &Program,
        record: &mut Record<'_>,
    ) -> Result<(), DataError> {
        let length = self.window.sequence_length;
        let [tokens, labels, segments, positions] =
            record.fields::<i32, 4>(program, ["tokens", "labels", "segments", "positions"]);
        for (row, start) in starts.enumerate() {
            let part = row * length..(row + 1) * length;
            let rows = WindowRows {
                tokens: &mut tokens[part.clone()],
                labels: &mut labels[part.clone()],
                segments: &mut segments[part.clone()],
                positions: &mut positions[part],
            };
            fill_window(stream, start, &self.window, rows)?;
        }
        Ok(())
    }
}
