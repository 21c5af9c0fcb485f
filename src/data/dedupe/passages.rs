//! Which parts of documents go.
//!
//! Duty: what is noted of each document that stays, in order, and then the ranges of it that stood
//! before. Limits: 8 bytes for each document, 24 on disk for each line or paragraph; passages of
//! any place hold all text ([`super::substring`]). Prohibition: changes no text.

use std::ops::Range;
use std::path::Path;

use super::bits::Bits;
use super::config::DedupeConfig;
use super::exact::{Fingerprint, Repeated, fingerprint};
use super::substring::Passages;
use super::units::UnitKind;
use crate::data::error::DataError;

/// What is asked of the parts of each document: its kinds of units, from so many bytes on.
pub(in crate::data) struct PartQuestions(Vec<(UnitKind, usize)>);

impl PartQuestions {
    /// What has to be known of a document.
    pub(in crate::data) fn note(&self, text: &str) -> PartNote {
        let of = |&(kind, min_bytes): &(UnitKind, usize)| {
            let compared = kind.units(text, min_bytes).filter_map(|(_, compared)| compared);
            compared.map(fingerprint).collect()
        };
        self.0.iter().map(of).collect()
    }
}

/// What was answered so far.
pub(in crate::data) struct PartSearch {
    units: Vec<(UnitKind, usize, Repeated, Units)>,
    passages: Option<(Passages, usize)>,
}

/// Which units of which documents go.
#[derive(Default)]
struct Units {
    /// The number of the first unit of each document.
    starts: Vec<u64>,
    count: u64,
    gone: Bits,
}

/// What is noted of a document: the fingerprints of its units of each kind.
pub(in crate::data) type PartNote = Vec<Vec<Fingerprint>>;

/// The parts that go.
pub(in crate::data) struct PartsGone {
    units: Vec<(UnitKind, usize, Units)>,
    passages: Vec<Vec<Range<usize>>>,
}

impl PartSearch {
    /// Nothing yet. `folder` is for what does not fit into memory.
    pub(in crate::data) fn new(config: &DedupeConfig, folder: &Path) -> (PartQuestions, Self) {
        let kinds = [
            (UnitKind::Paragraph, &config.paragraphs, "paragraphs.tmp"),
            (UnitKind::Line, &config.lines, "lines.tmp"),
        ];
        let units = kinds.into_iter().filter_map(|(kind, config, file)| {
            let min_bytes = config.as_ref()?.min_bytes;
            Some((kind, min_bytes, Repeated::new(&folder.join(file)), Units::default()))
        });
        let passages = config.substring.as_ref();
        let passages = passages.map(|substring| (Passages::default(), substring.bytes));
        let units: Vec<_> = units.collect();
        let questions = units.iter().map(|&(kind, min_bytes, ..)| (kind, min_bytes)).collect();
        (PartQuestions(questions), Self { units, passages })
    }

    /// Whether the texts themselves are needed.
    pub(in crate::data) fn holds_texts(&self) -> bool {
        self.passages.is_some()
    }

    /// Takes the next document; `None` for one that goes.
    ///
    /// # Errors
    /// [`DataError::Io`]; [`DataError::Config`] for too much text.
    pub(in crate::data) fn push(
        &mut self,
        document: Option<(&str, &PartNote)>,
    ) -> Result<(), DataError> {
        for (at, (.., repeated, units)) in self.units.iter_mut().enumerate() {
            units.starts.push(units.count);
            for &one in document.iter().flat_map(|(_, note)| &note[at]) {
                repeated.push(one, units.count)?;
                units.count += 1;
            }
        }
        match &mut self.passages {
            Some((passages, _)) => passages.push(document.map_or("", |(text, _)| text)),
            None => Ok(()),
        }
    }

    /// Decides.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub(in crate::data) fn find(self, threads: usize) -> Result<PartsGone, DataError> {
        let mut found = Vec::new();
        for (kind, min_bytes, repeated, units) in self.units {
            let gone = repeated.later(threads)?;
            found.push((kind, min_bytes, Units { gone, ..units }));
        }
        let passages = self.passages.map(|(passages, length)| passages.repeated(length));
        Ok(PartsGone { units: found, passages: passages.unwrap_or_default() })
    }
}

impl PartsGone {
    /// The ranges of a document's text that go, in order and apart.
    pub(in crate::data) fn ranges(&self, document: u64, text: &str) -> Vec<Range<usize>> {
        let document = document as usize;
        let mut ranges = self.passages.get(document).cloned().unwrap_or_default();
        for (kind, min_bytes, units) in &self.units {
            let (mut number, mut at) = (units.starts[document], 0);
            for (whole, compared) in kind.units(text, *min_bytes) {
                if compared.is_some() {
                    if units.gone.contains(number) {
                        ranges.push(at..at + whole.len());
                    }
                    number += 1;
                }
                at += whole.len();
            }
        }
        ranges.sort_unstable_by_key(|range| range.start);
        let mut apart: Vec<Range<usize>> = Vec::new();
        for range in ranges {
            match apart.last_mut().filter(|last| range.start <= last.end) {
                Some(last) => last.end = last.end.max(range.end),
                None => apart.push(range),
            }
        }
        apart
    }
}

/// A text without some ranges of it.
pub(in crate::data) fn without(text: &str, ranges: &[Range<usize>], left: &mut String) {
    let mut from = 0;
    for range in ranges {
        left.push_str(&text[from..range.start]);
        from = range.end;
    }
    left.push_str(&text[from..]);
}

#[cfg(test)]
mod tests;
