//! The rows of one sample.
//!
//! Duty: tokens, next-token labels, segments and positions of one window, with documents kept
//! apart if asked for: a segment is one document, positions restart with each. The token that ends
//! a document is a label there and opens the next one, whose first token is its label. Where
//! documents end without such a token, nothing opens them: a label in another document than its
//! token is ignored. Nothing is allocated. Prohibition: no randomness; the
//! same window is the same rows for every rank.

use super::error::DataError;
use super::stream::TokenStream;

/// The label of a token that has no target.
pub const IGNORED: i32 = -1;

/// How windows are cut and marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLayout {
    /// Tokens per window, without the last label.
    pub sequence_length: usize,
    /// Keeps documents apart: segments, and no label across a border.
    pub document_masks: bool,
    /// The token before a document opens it.
    pub opened: bool,
    /// Restarts positions at each document; without effect if `document_masks` is off.
    pub reset_positions: bool,
}

/// Where the rows go; each slice has `sequence_length` elements.
#[derive(Debug)]
pub struct WindowRows<'a> {
    /// Token ids.
    pub tokens: &'a mut [i32],
    /// The next token of each, or [`IGNORED`].
    pub labels: &'a mut [i32],
    /// Number of the document inside the window, from 0.
    pub segments: &'a mut [i32],
    /// Place of each token in its document or window, from 0.
    pub positions: &'a mut [i32],
}

/// Fills the rows of the window that begins with token `start`; returns the number of labels
/// that are not ignored. Behind the end of the stream stand `padding` and no labels, in a segment
/// of their own.
///
/// # Errors
/// [`DataError::OutOfRange`] if the stream ends before the first label, or [`DataError::Chunk`] if
/// a shard is damaged.
///
/// # Panics
/// If a slice has the wrong length, or for windows of no or more than `i32::MAX` tokens.
pub fn fill_window(
    stream: &TokenStream,
    start: u64,
    layout: &WindowLayout,
    padding: i32,
    rows: WindowRows<'_>,
) -> Result<u64, DataError> {
    let length = layout.sequence_length;
    let WindowRows { tokens, labels, segments, positions } = rows;
    for row in [&*tokens, &*labels, &*segments, &*positions] {
        assert_eq!(row.len(), length, "a row has one element per token of the window");
    }
    assert!(length > 0 && i32::try_from(length).is_ok(), "a row has some places, numbered by i32");
    let filled = filled(stream, start, layout)?;
    let used = filled as usize;
    stream.read(start, &mut tokens[..used])?;
    labels[..used - 1].copy_from_slice(&tokens[1..used]);
    stream.read(start + filled, &mut labels[used - 1..used])?;
    tokens[used..].fill(padding);
    labels[used..].fill(IGNORED);
    // Documents one after the other: `from` is the place of the first token not yet marked.
    let mut mark = Mark::new(layout.reset_positions);
    let mut targets = filled;
    if layout.document_masks {
        stream.for_each_border(start, filled, |border| {
            let border = (border - start) as usize;
            if layout.opened {
                return mark.document(border - 1, segments, positions);
            }
            labels[border - 1] = IGNORED;
            targets -= 1;
            mark.document(border, segments, positions);
        })?;
    }
    mark.document(used, segments, positions);
    mark.document(length, segments, positions);
    Ok(targets)
}

/// Tokens of the window that begins with `start` which have a next one.
fn filled(stream: &TokenStream, start: u64, layout: &WindowLayout) -> Result<u64, DataError> {
    stream.check_range(start, 2)?;
    Ok((layout.sequence_length as u64).min(stream.len() - 1 - start))
}

/// How many labels [`fill_window`] would not ignore, without reading a token.
///
/// # Errors
/// As [`fill_window`].
pub fn count_targets(
    stream: &TokenStream,
    start: u64,
    layout: &WindowLayout,
) -> Result<u64, DataError> {
    let filled = filled(stream, start, layout)?;
    let ignores = layout.document_masks && !layout.opened;
    Ok(filled - if ignores { stream.borders(start, filled)? } else { 0 })
}

/// Marks segments and positions, document by document.
pub(super) struct Mark {
    from: usize,
    segment: i32,
    restart: bool,
}

impl Mark {
    /// At the first token of a window; `restart` says whether each document counts from 0.
    pub(super) fn new(restart: bool) -> Self {
        Self { from: 0, segment: 0, restart }
    }

    /// Marks the tokens up to `end`, exclusive, as one document, if there are any.
    pub(super) fn document(&mut self, end: usize, segments: &mut [i32], positions: &mut [i32]) {
        if end == self.from {
            return;
        }
        segments[self.from..end].fill(self.segment);
        let first = if self.restart { 0 } else { self.from as i32 };
        for (position, value) in positions[self.from..end].iter_mut().zip(first..) {
            *position = value;
        }
        self.from = end;
        self.segment += 1;
    }
}

#[cfg(test)]
mod tests;
