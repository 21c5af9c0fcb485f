//! The classifier and its file.
//!
//! Duty: features are words without case and pairs of them, hashed into so many weights; the score
//! is the logistic function of their sum over the root of their number. The file ends with a hash
//! of all before. Limits: 2^26 weights.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::data::clean::Document;
use crate::data::clean::settings::unreadable;
use crate::data::clean::table::hash_of;
use crate::data::error::DataError;

const MAGIC: &[u8; 8] = b"OCTQUAL1";
const BITS_MAX: u32 = 26;
const HEADER_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// Longer words are of their beginning.
const WORD_BYTES: usize = 64;

/// A linear classifier.
#[derive(Clone, Debug, PartialEq)]
pub struct Classifier {
    pub(super) weights: Vec<f32>,
    pub(super) bias: f32,
}

impl Classifier {
    /// One that knows nothing, with 2^`bits` weights.
    pub(super) fn new(bits: u32) -> Self {
        Self { weights: vec![0.0; 1 << bits], bias: 0.0 }
    }

    /// The places of a document's features.
    pub(super) fn features(&self, document: &mut Document, features: &mut Vec<u32>) {
        features.clear();
        document.words();
        let view = document.view();
        let mask = self.weights.len() - 1;
        let place = |hash: u64| ((hash ^ hash >> 32) as usize & mask) as u32;
        let mut before = 0u64;
        for word in view.words {
            let word = view.word(word).as_bytes();
            let mut lower = [0; WORD_BYTES];
            let length = word.len().min(WORD_BYTES);
            lower[..length].copy_from_slice(&word[..length]);
            lower[..length].make_ascii_lowercase();
            let hash = hash_of(&lower[..length]);
            features.push(place(hash));
            if before != 0 {
                features.push(place(
                    (before.rotate_left(23) ^ hash).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                ));
            }
            before = hash | 1;
        }
    }

    /// The sum that the score is made of.
    pub(super) fn logit(&self, features: &[u32]) -> f64 {
        let sum: f64 = features.iter().map(|&at| f64::from(self.weights[at as usize])).sum();
        f64::from(self.bias) + sum / (features.len().max(1) as f64).sqrt()
    }

    /// How much a document is like the good ones, from 0 to 1.
    pub fn score(&self, document: &mut Document) -> f64 {
        let mut features = Vec::new();
        self.features(document, &mut features);
        logistic(self.logit(&features))
    }

    /// Writes the file.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), DataError> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 4 * self.weights.len() + HASH_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend(self.weights.len().trailing_zeros().to_le_bytes());
        bytes.extend(self.bias.to_le_bytes());
        self.weights.iter().for_each(|weight| bytes.extend(weight.to_le_bytes()));
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        let temporary = path.with_extension("tmp");
        File::create(&temporary)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&temporary, path))
            .map_err(DataError::io(path, "write"))
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`DataError::Config`] for a file that is missing, or none of this kind, or damaged.
    pub fn load(path: &Path) -> Result<Self, DataError> {
        let bytes = fs::read(path).map_err(|error| unreadable(path, &error))?;
        let none = || unreadable(path, &"it is none that octet train-filter wrote");
        if bytes.len() < HEADER_BYTES + HASH_BYTES || !bytes.starts_with(MAGIC) {
            return Err(none());
        }
        let (content, hash) = bytes.split_at(bytes.len() - HASH_BYTES);
        let word = |at: usize| [content[at], content[at + 1], content[at + 2], content[at + 3]];
        let bits = u32::from_le_bytes(word(8));
        let weights = &content[HEADER_BYTES..];
        if bits > BITS_MAX || weights.len() != 4 << bits {
            return Err(none());
        }
        if blake3::hash(content).as_bytes() != hash {
            return Err(unreadable(path, &"it is damaged"));
        }
        let weight = |at: usize| f32::from_le_bytes(word(HEADER_BYTES + 4 * at));
        let weights: Vec<f32> = (0..1 << bits).map(weight).collect();
        Ok(Self { weights, bias: f32::from_le_bytes(word(12)) })
    }
}

pub(super) fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
