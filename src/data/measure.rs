//! Times the two hot paths of data: encoding text and filling windows.
//!
//! Duty: the figures of `octet bench data`, on one thread. Prohibition: no printing, no files.

use std::time::Instant;

use serde::Serialize;

use super::error::DataError;
use super::order::{SampleOrder, Windows};
use super::source::Corpus;
use super::stream::TokenStream;
use super::tokenize::Tokenizer;
use super::window::{WindowLayout, WindowRows, fill_window};

/// Speed of encoding on one thread.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct EncodeSpeed {
    /// UTF-8 bytes of text.
    pub text_bytes: u64,
    /// Tokens they became.
    pub tokens: u64,
    /// Seconds in the tokenizer, reading not included.
    pub seconds: f64,
    /// Millions of bytes per second.
    pub mb_per_s: f64,
}

/// Speed of filling windows on one thread.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct WindowSpeed {
    /// Windows filled.
    pub windows: u64,
    /// Labels that are not ignored.
    pub targets: u64,
    /// Seconds.
    pub seconds: f64,
    /// Tokens per second, all four rows of each included.
    pub tokens_per_s: f64,
}

/// Encodes the whole corpus once with one encoder and throws the tokens away.
///
/// # Errors
/// As [`Corpus::for_each`] and [`super::Encoder::encode`].
pub fn encode_speed(corpus: &Corpus, tokenizer: &Tokenizer) -> Result<EncodeSpeed, DataError> {
    let mut encoder = tokenizer.encoder();
    let mut buffer = Vec::new();
    let (mut text_bytes, mut tokens, mut seconds) = (0, 0, 0.0);
    corpus.for_each(&mut |document| {
        buffer.clear();
        let start = Instant::now();
        encoder.encode(document.text, &mut buffer)?;
        seconds += start.elapsed().as_secs_f64();
        text_bytes += document.text.len() as u64;
        tokens += buffer.len() as u64;
        Ok(())
    })?;
    Ok(EncodeSpeed { text_bytes, tokens, seconds, mb_per_s: text_bytes as f64 / seconds / 1e6 })
}

/// Fills `windows` shuffled windows.
///
/// # Errors
/// As [`SampleOrder::new`] and [`fill_window`].
pub fn window_speed(
    stream: &TokenStream,
    layout: &WindowLayout,
    windows: u64,
) -> Result<WindowSpeed, DataError> {
    let length = layout.sequence_length;
    let order = SampleOrder::new(0, "measure", stream.len(), length, Windows::Shuffled)?;
    let mut rows = [vec![0; length], vec![0; length], vec![0; length], vec![0; length]];
    let mut targets = 0;
    let start = Instant::now();
    for sample in 0..windows {
        let [tokens, labels, segments, positions] = &mut rows;
        let rows = WindowRows { tokens, labels, segments, positions };
        targets += fill_window(stream, order.start(sample), layout, rows)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let tokens = windows as f64 * length as f64;
    Ok(WindowSpeed { windows, targets, seconds, tokens_per_s: tokens / seconds })
}

#[cfg(test)]
mod tests;
