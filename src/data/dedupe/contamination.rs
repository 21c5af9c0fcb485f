//! Documents that hold what models are tested with.
//!
//! Duty: the sequences of words of evaluation samples, and which of these samples a document
//! touches. A sample of fewer words than a sequence is looked for as a whole. Words are those of
//! [`super::words`], so that case, punctuation and spacing do not hide a sample. Limits: the
//! sequences of all samples in memory, 16 bytes each. Prohibition: removes nothing.

use super::words::{hash_words, shingles};

/// A sample of fewer words is found everywhere.
const SAMPLE_WORDS_MIN: usize = 8;
/// Bits of the filter in front of the table, as a power of two.
const FILTER_LOG2: u32 = 22;

/// Evaluation samples, ready to be looked for.
pub(in crate::data) struct Samples {
    /// Words of a sequence.
    length: usize,
    /// Sequences and the samples that they are of, sorted.
    sequences: Vec<(u64, u32)>,
    /// Lengths that sequences have.
    lengths: Vec<usize>,
    /// Which of the first bits any sequence has.
    filter: Vec<u64>,
    /// Samples told of, with those that are too short.
    samples: u32,
    too_short: u64,
}

/// What one thread keeps while it works.
#[derive(Default)]
pub(super) struct Scratch {
    words: Vec<u64>,
    found: Vec<u32>,
}

/// A sample that a document touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::data) struct Touch {
    /// Its number, from 0.
    pub(in crate::data) sample: u32,
    /// How many of its sequences the document holds.
    pub(in crate::data) sequences: u32,
}

impl Samples {
    /// Takes samples in order. `length`: words of a sequence.
    pub(in crate::data) fn new(
        length: usize,
        texts: impl Iterator<Item = impl AsRef<str>>,
    ) -> Self {
        let filter = vec![0; 1 << (FILTER_LOG2 - 6)];
        let (sequences, lengths) = (Vec::new(), Vec::new());
        let mut all = Self { length, sequences, lengths, filter, samples: 0, too_short: 0 };
        let mut words = Vec::new();
        for text in texts {
            hash_words(text.as_ref(), &mut words);
            let length = length.min(words.len());
            if length < SAMPLE_WORDS_MIN.min(all.length) {
                all.too_short += 1;
            } else {
                if !all.lengths.contains(&length) {
                    all.lengths.push(length);
                }
                let sample = all.samples;
                shingles(&words, length, |hash| {
                    all.sequences.push((of_length(hash, length), sample))
                });
            }
            all.samples += 1;
        }
        all.sequences.sort_unstable();
        all.sequences.dedup();
        for &(hash, _) in &all.sequences {
            let bit = hash >> (u64::BITS - FILTER_LOG2);
            all.filter[(bit / 64) as usize] |= 1 << (bit % 64);
        }
        all
    }

    /// Samples in all.
    pub(in crate::data) fn len(&self) -> u32 {
        self.samples
    }

    /// Samples that are too short to be looked for.
    pub(in crate::data) fn too_short(&self) -> u64 {
        self.too_short
    }

    /// The samples that a document touches, by number.
    pub(super) fn touched(&self, text: &str, scratch: &mut Scratch) -> Vec<Touch> {
        let Scratch { words, found } = scratch;
        hash_words(text, words);
        found.clear();
        for &length in &self.lengths {
            shingles(words, length, |hash| {
                let hash = of_length(hash, length);
                let bit = hash >> (u64::BITS - FILTER_LOG2);
                if self.filter[(bit / 64) as usize] >> (bit % 64) & 1 == 1 {
                    let at = self.sequences.partition_point(|&(one, _)| one < hash);
                    let same = self.sequences[at..].iter().take_while(|&&(one, _)| one == hash);
                    found.extend(same.map(|&(_, sample)| sample));
                }
            });
        }
        found.sort_unstable();
        let touch = |same: &[u32]| Touch { sample: same[0], sequences: same.len() as u32 };
        found.chunk_by(|one, other| one == other).map(touch).collect()
    }
}

/// Sequences of different lengths are different ones.
fn of_length(hash: u64, length: usize) -> u64 {
    super::words::mixed(hash ^ length as u64)
}

#[cfg(test)]
mod tests;
