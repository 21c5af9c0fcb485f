//! The `[data.dedupe]` table of a run.
//!
//! Duty: which kinds of repetition go, with their settings; a kind that is not named stays.
//! Prohibition: opens nothing.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::minhash::MinHashConfig;
use crate::data::config::TextSpec;
use crate::data::error::DataError;

/// What goes. Of several that are alike the first in reading order stays.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DedupeConfig {
    /// Documents with the same text.
    pub exact: bool,
    /// Documents that share most of their word sequences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near: Option<NearConfig>,
    /// Documents that hold samples of evaluation sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decontaminate: Option<DecontaminateConfig>,
    /// Documents that are close in embeddings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub semantic: Option<SemanticConfig>,
    /// Paragraphs, which empty lines part, that stood before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paragraphs: Option<UnitsConfig>,
    /// Lines that stood before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<UnitsConfig>,
    /// Passages that stood before, wherever they begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub substring: Option<SubstringConfig>,
}

/// How near duplicates are found, and among what.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct NearConfig {
    /// Words of a shingle (default 5).
    pub words: Option<usize>,
    /// Bands (default 14).
    pub bands: Option<usize>,
    /// Values of a band (default 8).
    pub rows: Option<usize>,
    /// Chooses the hash functions (default 1).
    pub seed: Option<u64>,
    /// Indexes of earlier data, written by `save`: what is like anything there goes too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub against: Vec<PathBuf>,
    /// Where an index of these data, and of those that they were held against, is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save: Option<PathBuf>,
}

impl NearConfig {
    /// With the defaults where nothing is given.
    pub(super) fn minhash(&self) -> MinHashConfig {
        let usual = MinHashConfig::default();
        MinHashConfig {
            words: self.words.unwrap_or(usual.words),
            bands: self.bands.unwrap_or(usual.bands),
            rows: self.rows.unwrap_or(usual.rows),
            seed: self.seed.unwrap_or(usual.seed),
        }
    }
}

/// The evaluation sets that data must not hold.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DecontaminateConfig {
    /// Files or folders, read as `data.text` is; every document is a sample.
    pub text: TextSpec,
    /// The field of a JSON line that holds the sample (default `"text"`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Words in a row that a document must share with a sample (default 13, as for GPT-3).
    #[serde(default = "decontaminate_words")]
    pub words: usize,
}

fn decontaminate_words() -> usize {
    13
}

/// Embeddings of the documents.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SemanticConfig {
    /// A NumPy file with a row of 32-bit floats for each document, in reading order.
    pub embeddings: PathBuf,
    /// Clusters that documents are compared within (default 1000).
    #[serde(default = "clusters")]
    pub clusters: usize,
    /// A document goes if one before it has at least this cosine (default 0.95).
    #[serde(default = "cosine")]
    pub cosine: f32,
    /// Chooses the first centres (default 1).
    #[serde(default = "seed")]
    pub seed: u64,
}

fn clusters() -> usize {
    1000
}

fn cosine() -> f32 {
    0.95
}

fn seed() -> u64 {
    1
}

/// Lines or paragraphs.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UnitsConfig {
    /// Shorter ones stay wherever they are: a closing brace is no repetition (default 32).
    #[serde(default = "min_bytes")]
    pub min_bytes: usize,
}

fn min_bytes() -> usize {
    32
}

/// Passages.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SubstringConfig {
    /// Bytes of a passage (default 200: about 50 tokens).
    #[serde(default = "passage_bytes")]
    pub bytes: usize,
}

fn passage_bytes() -> usize {
    200
}

impl DedupeConfig {
    /// True if nothing goes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`DataError::Config`] for the first that is not usable.
    pub fn validate(&self) -> Result<(), DataError> {
        let within = |key: &'static str, got: usize, low: usize, high: usize| {
            if (low..=high).contains(&got) {
                return Ok(());
            }
            let problem = format!("expected a number from {low} to {high}, got {got}");
            Err(DataError::Config { key, problem })
        };
        if let Some(near) = &self.near {
            let MinHashConfig { words, bands, rows, .. } = near.minhash();
            within("data.dedupe.near.words", words, 1, 64)?;
            within("data.dedupe.near.bands", bands, 1, 256)?;
            within("data.dedupe.near.rows", rows, 1, 256)?;
        }
        if let Some(sets) = &self.decontaminate {
            within("data.dedupe.decontaminate.words", sets.words, 2, 256)?;
        }
        if let Some(semantic) = &self.semantic {
            within("data.dedupe.semantic.clusters", semantic.clusters, 1, 1 << 20)?;
            if !(semantic.cosine > 0.0 && semantic.cosine <= 1.0) {
                let key = "data.dedupe.semantic.cosine";
                let got = semantic.cosine;
                let problem = format!("expected a number above 0, at most 1, got {got}");
                return Err(DataError::Config { key, problem });
            }
        }
        if let Some(substring) = &self.substring {
            within("data.dedupe.substring.bytes", substring.bytes, 16, 1 << 20)?;
        }
        Ok(())
    }

    /// The files that it names, beside evaluation sets.
    pub(in crate::data) fn files(&self) -> Vec<PathBuf> {
        let near = self.near.iter().flat_map(|near| near.against.clone());
        near.chain(self.semantic.iter().map(|semantic| semantic.embeddings.clone())).collect()
    }

    /// Whether parts of documents go.
    pub(in crate::data) fn cuts(&self) -> bool {
        self.paragraphs.is_some() || self.lines.is_some() || self.substring.is_some()
    }
}
