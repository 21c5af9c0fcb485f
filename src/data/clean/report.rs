//! What a stage did to the documents: counts, reasons, and some examples of each.
//!
//! Duty: adds up in any order to the same report. Limits: so many short examples of each reason.
//! Prohibition: shows nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Examples of each reason.
const SAMPLES_MAX: usize = 5;
/// Places of the histogram of scores.
pub(super) const SCORES: usize = 20;
/// Bytes of an example's text, about.
const SAMPLE_BYTES: usize = 400;

/// What one step did.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct StepReport {
    /// The step's name.
    pub name: String,
    /// Documents that came.
    pub documents_in: u64,
    /// Bytes of their text.
    pub bytes_in: u64,
    /// Documents that went on.
    pub documents_out: u64,
    /// Bytes of their text.
    pub bytes_out: u64,
    /// Documents that went on with another text.
    pub changed: u64,
    /// What was dropped, by reason.
    pub dropped: BTreeMap<String, Dropped>,
    /// Documents that went on, by the base-2 logarithm of their bytes, rounded down.
    pub sizes: Vec<u64>,
    /// Documents that came, by their score in twentieths, if the step gives one.
    pub scores: Vec<u64>,
}

/// What was dropped for one reason.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Dropped {
    /// Documents.
    pub documents: u64,
    /// Bytes of their text.
    pub bytes: u64,
    /// Some of them: those with the smallest numbers, which chance gives.
    pub samples: Vec<Sample>,
}

/// The beginning of a document, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub struct Sample {
    /// Decides which are kept, whatever the order in which they come: a hash of its place.
    pub number: u64,
    /// Position of its file in the list of the source's files.
    pub file: usize,
    /// Its place in that file.
    pub offset: u64,
    /// Its beginning.
    pub text: String,
}

fn count(counts: &mut Vec<u64>, at: usize, more: u64) {
    counts.resize(counts.len().max(at + 1), 0);
    counts[at] += more;
}

impl StepReport {
    /// A report of nothing yet.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Counts a document that went on.
    pub fn kept(&mut self, bytes_in: usize, bytes_out: usize, changed: bool) {
        self.documents_in += 1;
        self.bytes_in += bytes_in as u64;
        self.documents_out += 1;
        self.bytes_out += bytes_out as u64;
        self.changed += u64::from(changed);
        count(&mut self.sizes, bytes_out.max(1).ilog2() as usize, 1);
    }

    /// Counts a score.
    pub fn score(&mut self, score: f64) {
        let at = (score * SCORES as f64) as usize;
        count(&mut self.scores, at.min(SCORES - 1), 1);
    }

    /// Counts a document that was dropped.
    pub fn drop(&mut self, reason: &str, text: &str, file: usize, offset: u64) {
        self.documents_in += 1;
        self.bytes_in += text.len() as u64;
        if !self.dropped.contains_key(reason) {
            self.dropped.insert(reason.to_owned(), Dropped::default());
        }
        let Some(dropped) = self.dropped.get_mut(reason) else { return };
        dropped.documents += 1;
        dropped.bytes += text.len() as u64;
        let number = crate::data::order::mix(offset ^ ((file as u64) << 44));
        if dropped.has_room_for(number) {
            let text = text[..text.floor_char_boundary(SAMPLE_BYTES)].to_owned();
            dropped.insert(Sample { number, file, offset, text });
        }
    }

    /// Adds what the same step did elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.documents_in += other.documents_in;
        self.bytes_in += other.bytes_in;
        self.documents_out += other.documents_out;
        self.bytes_out += other.bytes_out;
        self.changed += other.changed;
        for (sum, other) in [(&mut self.sizes, &other.sizes), (&mut self.scores, &other.scores)] {
            other.iter().enumerate().for_each(|(at, &more)| count(sum, at, more));
        }
        for (reason, other) in &other.dropped {
            let dropped = self.dropped.entry(reason.clone()).or_default();
            dropped.documents += other.documents;
            dropped.bytes += other.bytes;
            other.samples.iter().for_each(|sample| {
                if dropped.has_room_for(sample.number) {
                    dropped.insert(sample.clone());
                }
            });
        }
    }
}

impl Dropped {
    fn has_room_for(&self, number: u64) -> bool {
        self.samples.len() < SAMPLES_MAX
            || self.samples.last().is_some_and(|last| number < last.number)
    }

    fn insert(&mut self, sample: Sample) {
        let at = self.samples.partition_point(|other| *other < sample);
        self.samples.insert(at, sample);
        self.samples.truncate(SAMPLES_MAX);
    }
}
