//! The `[data]` table of a run.
//!
//! Duty: the keys, their defaults and the checks that need no file. Prohibition: reads nothing;
//! whether a path exists is found out by `prepare`.

use std::fmt;
use std::path::PathBuf;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::DataError;
use super::window::WindowLayout;

/// Where the text comes from and how it becomes tokens.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// A file, a folder, a list of either, or `"cargo"` (default): the sources of the packages
    /// that this program was built from. Relative paths start at the current directory.
    pub text: TextSpec,
    /// `"bytes"` (default), `"characters"`, `"bpe:N"`, or the path of a `tokenizer.json`.
    pub tokenizer: String,
    /// The part of the token stream, at its end, that is held out. At least 0, below 1.
    pub validation_fraction: f64,
    /// The folder of shards and tokenizer; by default `runs/cache/<digest>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// Hides tokens of other documents from attention and from the loss (default true).
    pub document_masks: bool,
    /// Restarts positions at the first token of each document (default true).
    pub reset_positions: bool,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            text: TextSpec(vec!["cargo".to_owned()]),
            tokenizer: "bytes".to_owned(),
            validation_fraction: 0.1,
            cache: None,
            document_masks: true,
            reset_positions: true,
        }
    }
}

impl DataConfig {
    /// Checks every key without touching a file.
    ///
    /// # Errors
    /// [`DataError::Config`] for the first key with an unusable value.
    pub fn validate(&self) -> Result<(), DataError> {
        if self.text.0.is_empty() || self.text.0.iter().any(String::is_empty) {
            return Err(DataError::Config {
                key: "data.text",
                problem: "expected a file, a folder, a list of either, or \"cargo\", got nothing"
                    .to_owned(),
            });
        }
        TokenizerSpec::parse(&self.tokenizer)?;
        if !(0.0..1.0).contains(&self.validation_fraction) {
            return Err(DataError::Config {
                key: "data.validation_fraction",
                problem: format!(
                    "expected a number of at least 0 and below 1, got {}",
                    self.validation_fraction
                ),
            });
        }
        if self.cache.as_ref().is_some_and(|folder| folder.as_os_str().is_empty()) {
            return Err(DataError::Config {
                key: "data.cache",
                problem: "expected a folder, got nothing".to_owned(),
            });
        }
        Ok(())
    }

    /// How windows of `sequence_length` tokens are cut and marked.
    pub fn window_layout(&self, sequence_length: usize) -> WindowLayout {
        WindowLayout {
            sequence_length,
            document_masks: self.document_masks,
            reset_positions: self.reset_positions,
        }
    }
}

/// The value of `data.text`: one source, or a list that is read in the given order.
#[derive(Clone, Debug, PartialEq)]
pub struct TextSpec(pub Vec<String>);

impl fmt::Display for TextSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl From<&str> for TextSpec {
    fn from(source: &str) -> Self {
        Self(vec![source.to_owned()])
    }
}

impl Serialize for TextSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => serializer.serialize_str(one),
            many => many.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for TextSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = TextSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a file, a folder, a list of either, or \"cargo\"")
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<TextSpec, E> {
        Ok(TextSpec::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<TextSpec, A::Error> {
        let mut sources = Vec::new();
        while let Some(source) = items.next_element()? {
            sources.push(source);
        }
        Ok(TextSpec(sources))
    }
}

/// The value of `data.tokenizer`, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenizerSpec {
    /// One token per byte.
    Bytes,
    /// One token per character that occurs in the text.
    Characters,
    /// Byte-level byte pair encoding, made from the text, with at most so many tokens.
    Bpe(usize),
    /// A `tokenizer.json`, or the folder that holds one.
    File(PathBuf),
}

impl TokenizerSpec {
    /// The fewest tokens of `bpe:N`: all bytes and the end of a document.
    pub const BPE_MIN: usize = 257;

    /// Reads the value of `data.tokenizer`. A path is recognised by a `/` or a `.` in it.
    ///
    /// # Errors
    /// [`DataError::Config`] that says what was expected.
    pub fn parse(value: &str) -> Result<Self, DataError> {
        let refuse = || DataError::Config {
            key: "data.tokenizer",
            problem: format!(
                "expected \"bytes\", \"characters\", \"bpe:N\" or a file, got \"{value}\""
            ),
        };
        match value {
            "bytes" => Ok(Self::Bytes),
            "characters" => Ok(Self::Characters),
            _ => match value.strip_prefix("bpe:") {
                Some(size) => match size.parse() {
                    Ok(size) if size < Self::BPE_MIN => Err(DataError::Config {
                        key: "data.tokenizer",
                        problem: format!(
                            "expected a size of at least {} in \"bpe:N\", got \"{value}\"",
                            Self::BPE_MIN
                        ),
                    }),
                    Ok(size) => Ok(Self::Bpe(size)),
                    Err(_) => Err(refuse()),
                },
                None if value.contains(['/', '\\', '.']) => Ok(Self::File(PathBuf::from(value))),
                None => Err(refuse()),
            },
        }
    }
}

#[cfg(test)]
mod tests;
