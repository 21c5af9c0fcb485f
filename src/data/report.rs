//! What a preparation did, from documents to tokens: `report.json`, and the same as one page,
//! `report.html`.
//!
//! Duty: gathers counts, examples and histograms of every source. Ownership: both files. Limits: as
//! many examples as steps keep. Prohibition: nothing depends on it; the page needs no network.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::clean::StepReport;
use super::error::DataError;
use super::source::{BadRecord, Skipped};

mod chart;
mod page;

/// The page, in the folder of prepared data.
pub const PAGE: &str = "report.html";
const FILE: &str = "report.json";

/// The whole preparation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Report {
    /// The tokenizer as it was given, and its tokens.
    pub tokenizer: String,
    /// Tokens that it has.
    pub vocabulary: usize,
    /// The sources, in order.
    pub sources: Vec<SourceReport>,
    /// Seconds of each stage, of the process that finished it.
    pub seconds: BTreeMap<String, f64>,
}

/// One source.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct SourceReport {
    /// Its name; empty for `data.text`.
    pub name: String,
    /// Files by what they hold.
    pub formats: BTreeMap<String, u64>,
    /// Bytes of them, decompressed.
    pub bytes: u64,
    /// What was passed over.
    pub skipped: Skipped,
    /// The first of the records that are no documents.
    pub bad_records: Vec<BadPlace>,
    /// What each step did, in order; none if there are none.
    pub steps: Vec<StepReport>,
    /// Names of the files that examples come from, by their position.
    pub files: BTreeMap<usize, String>,
    /// Documents that became tokens.
    pub documents: u64,
    /// UTF-8 bytes of their text.
    pub text_bytes: u64,
    /// Tokens to train on.
    pub train_tokens: u64,
    /// Tokens held out.
    pub validation_tokens: u64,
    /// Documents by the base-2 logarithm of their bytes, rounded down.
    pub sizes: Vec<u64>,
    /// Documents by the base-2 logarithm of their tokens, rounded down.
    pub lengths: Vec<u64>,
}

/// A record that is no document.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct BadPlace {
    /// The file.
    pub file: String,
    /// Where it begins in the decompressed file; for a table, the number of its row.
    pub offset: u64,
    /// What is wrong with it.
    pub reason: String,
}

impl SourceReport {
    /// Names the files of bad records and examples.
    pub(super) fn name_files(&mut self, names: &[String], bad: &[BadRecord]) {
        let name = |file: usize| names.get(file).cloned().unwrap_or_default();
        let place = |bad: &BadRecord| BadPlace {
            file: name(bad.file),
            offset: bad.offset,
            reason: bad.reason.clone(),
        };
        self.bad_records = bad.iter().map(place).collect();
        let dropped = self.steps.iter().flat_map(|step| step.dropped.values());
        let files = dropped.flat_map(|dropped| dropped.samples.iter().map(|sample| sample.file));
        self.files = files.map(|file| (file, name(file))).collect();
    }

    /// Documents that came to the first step, or that were found where there are none.
    pub fn documents_in(&self) -> u64 {
        self.steps.first().map_or(self.documents, |step| step.documents_in)
    }

    /// Tokens in both splits.
    pub fn tokens(&self) -> u64 {
        self.train_tokens + self.validation_tokens
    }
}

/// How many of these values have each base-2 logarithm, rounded down; 0 counts as 1.
pub(super) fn by_logarithm(values: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut counts = Vec::new();
    for value in values {
        let at = value.max(1).ilog2() as usize;
        counts.resize(counts.len().max(at + 1), 0);
        counts[at] += 1;
    }
    counts
}

impl Report {
    /// Writes both files into a folder.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub(super) fn save(&self, folder: &Path) -> Result<(), DataError> {
        let json = serde_json::to_string_pretty(self).expect("a report is valid JSON");
        for (name, text) in [(FILE, json), (PAGE, page::page(self))] {
            let path = folder.join(name);
            fs::write(&path, text).map_err(DataError::io(&path, "write"))?;
        }
        Ok(())
    }

    /// The report of prepared data, if it is there.
    pub fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(FILE)).ok()?).ok()
    }
}

#[cfg(test)]
mod tests;
