//! The `[data]` table of a run.
//!
//! Duty: the keys, their defaults and the checks that need no file. Prohibition: reads nothing;
//! whether a path exists is found out by `prepare`.

use std::fmt;
use std::path::PathBuf;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::clean::CleanChain;
use super::dedupe::DedupeConfig;
use super::error::DataError;
use super::tokenize::pattern::Pattern;
use super::window::WindowLayout;

/// More sources than this are files of one source.
const SOURCES_MAX: usize = 64;
/// More bad records than this share are not bad luck.
pub(super) const BAD_RECORDS_MAX: f64 = 0.05;

/// Where the text comes from and how it becomes tokens.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// A file, a folder, a list of either, or `"cargo"` (default): the sources of the packages
    /// that this program was built from. Relative paths start at the current directory.
    pub text: TextSpec,
    /// The field of a JSON line that holds the text (default `"text"`).
    pub field: String,
    /// The field of a record that holds its address, for steps that look at it (default `"url"`).
    pub url_field: String,
    /// Steps that change and drop documents before they are tokenized, in their order: names of
    /// steps or presets, or tables with `step` and its settings. None by default.
    #[serde(skip_serializing_if = "CleanChain::is_empty")]
    pub clean: CleanChain,
    /// What is taken out because it stands in the data before, or in evaluation sets: `exact`,
    /// `near`, `decontaminate`, `semantic`, `paragraphs`, `lines`, `substring`. Nothing by default.
    #[serde(skip_serializing_if = "DedupeConfig::is_empty")]
    pub dedupe: DedupeConfig,
    /// The share of a source's records that may be passed over as bad before this ends the
    /// preparation (default 0.05). From 0 to 1.
    pub bad_records_max: f64,
    /// `"bytes"` (default), `"characters"`, `"bpe:N"`, or the path of a `tokenizer.json`, a
    /// `.tiktoken` file, a SentencePiece `.model` or a vocabulary of WordPiece.
    pub tokenizer: String,
    /// How a `.tiktoken` file cuts text into words, where its name does not say: `"gpt2"`,
    /// `"cl100k"`, `"llama3"`, `"qwen2"`, `"o200k"`, or a regular expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// The token behind every document, by name; by default the first of the usual names that
    /// the tokenizer has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_of_document: Option<String>,
    /// How documents are laid into windows.
    pub packing: Packing,
    /// The part of the token stream, at its end, that is held out. At least 0, below 1.
    pub validation_fraction: f64,
    /// The folder of shards and tokenizer; by default `runs/cache/<digest>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// Hides tokens of other documents from attention and from the loss (default true).
    pub document_masks: bool,
    /// Restarts positions at the first token of each document (default true).
    pub reset_positions: bool,
    /// Several texts with weights, in place of `text`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceConfig>,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            text: TextSpec::from("cargo"),
            field: "text".to_owned(),
            url_field: "url".to_owned(),
            clean: CleanChain::default(),
            dedupe: DedupeConfig::default(),
            bad_records_max: BAD_RECORDS_MAX,
            tokenizer: "bytes".to_owned(),
            split: None,
            end_of_document: None,
            packing: Packing::Concatenate,
            validation_fraction: 0.1,
            cache: None,
            document_masks: true,
            reset_positions: true,
            sources: Vec::new(),
        }
    }
}

/// One of several texts: `[[data.sources]]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Its name in logs, tasks and files: lower-case letters, digits, `-` and `_`.
    pub name: String,
    /// As `data.text`.
    pub text: TextSpec,
    /// Its share of the training samples is this over the sum of all weights (default 1).
    #[serde(default = "one")]
    pub weight: f64,
    /// As `data.field`, which it overrides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// As `data.url_field`, which it overrides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_field: Option<String>,
    /// As `data.clean`, which it overrides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean: Option<CleanChain>,
    /// As `data.bad_records_max`, which it overrides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad_records_max: Option<f64>,
    /// After so many epochs the source gives no more samples, and the others share its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_epochs: Option<u64>,
    /// The source ends after so many bytes of its files, at a whole character or line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
}

fn one() -> f64 {
    1.0
}

impl From<TextSpec> for SourceConfig {
    /// The source that `data.text` is: without a name.
    fn from(text: TextSpec) -> Self {
        Self {
            name: String::new(),
            text,
            weight: 1.0,
            field: None,
            url_field: None,
            clean: None,
            bad_records_max: None,
            max_epochs: None,
            max_bytes: None,
        }
    }
}

impl SourceConfig {
    /// The key that its text was given by.
    pub fn key(&self) -> String {
        match self.name.as_str() {
            "" => "data.text".to_owned(),
            // No source's name has a dot: this is a text that another key names.
            key if key.contains('.') => key.to_owned(),
            name => format!("data.sources: {name}"),
        }
    }
}

/// How documents are laid into windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// One stream of documents, cut anywhere. An epoch leaves one window out, so that the borders
    /// of the others move from epoch to epoch.
    #[default]
    Concatenate,
    /// A document that fits into a window is never cut; padding has no loss.
    WholeDocuments,
}

impl DataConfig {
    /// Checks every key without touching a file.
    ///
    /// # Errors
    /// [`DataError::Config`] for the first key with an unusable value.
    pub fn validate(&self) -> Result<(), DataError> {
        let refuse =
            |key, problem: &str| Err(DataError::Config { key, problem: problem.to_owned() });
        let empty = |text: &TextSpec| text.0.is_empty() || text.0.iter().any(String::is_empty);
        if empty(&self.text) {
            let what = "expected a file, a folder, a list of either, or \"cargo\", got nothing";
            return refuse("data.text", what);
        }
        if self.field.is_empty() {
            return refuse("data.field", "expected the name of a field, got nothing");
        }
        if self.url_field.is_empty() {
            return refuse("data.url_field", "expected the name of a field, got nothing");
        }
        if !(0.0..=1.0).contains(&self.bad_records_max) {
            let got = self.bad_records_max;
            let what = format!("expected a share from 0 to 1, got {got}");
            return refuse("data.bad_records_max", &what);
        }
        self.clean
            .validate()
            .map_err(|problem| DataError::Config { key: "data.clean", problem })?;
        self.dedupe.validate()?;
        self.validate_sources()?;
        let spec = TokenizerSpec::parse(&self.tokenizer)?;
        if let Some(split) = &self.split {
            if !matches!(spec, TokenizerSpec::File(_)) {
                return refuse("data.split", "expected only beside a .tiktoken file");
            }
            Pattern::parse(split)
                .map_err(|problem| DataError::Config { key: "data.split", problem })?;
        }
        if self.end_of_document.is_some()
            && matches!(spec, TokenizerSpec::Bytes | TokenizerSpec::Characters)
        {
            let what = "expected only with a tokenizer whose tokens have names";
            return refuse("data.end_of_document", what);
        }
        if self.end_of_document.as_ref().is_some_and(String::is_empty) {
            return refuse("data.end_of_document", "expected the name of a token, got nothing");
        }
        if !(0.0..1.0).contains(&self.validation_fraction) {
            let got = self.validation_fraction;
            let what = format!("expected a number of at least 0 and below 1, got {got}");
            return refuse("data.validation_fraction", &what);
        }
        if self.cache.as_ref().is_some_and(|folder| folder.as_os_str().is_empty()) {
            return refuse("data.cache", "expected a folder, got nothing");
        }
        Ok(())
    }

    fn validate_sources(&self) -> Result<(), DataError> {
        let key = "data.sources";
        let refuse = |problem| Err(DataError::Config { key, problem });
        if self.sources.is_empty() {
            return Ok(());
        }
        if self.text != Self::default().text {
            let problem = "expected nothing beside data.sources".to_owned();
            return Err(DataError::Config { key: "data.text", problem });
        }
        if self.sources.len() > SOURCES_MAX {
            let got = self.sources.len();
            return refuse(format!("expected at most {SOURCES_MAX}, got {got}"));
        }
        for (number, source) in self.sources.iter().enumerate() {
            let name = &source.name;
            let letter = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_');
            if name.is_empty() || !name.chars().all(letter) {
                return refuse(format!(
                    "expected a name of lower-case letters, digits, - and _, got \"{name}\""
                ));
            }
            if self.sources[..number].iter().any(|other| other.name == *name) {
                return refuse(format!("expected different names, got \"{name}\" twice"));
            }
            if source.text.0.is_empty() || source.text.0.iter().any(String::is_empty) {
                return refuse(format!("{name}: expected a text, got nothing"));
            }
            if !(source.weight.is_finite() && source.weight > 0.0) {
                let got = source.weight;
                return refuse(format!("{name}: expected a weight above 0, got {got}"));
            }
            if source.field.as_ref().is_some_and(String::is_empty) {
                return refuse(format!("{name}: expected the name of a field, got nothing"));
            }
            if let Some(chain) = &source.clean
                && let Err(problem) = chain.validate()
            {
                return refuse(format!("{name}: clean: {problem}"));
            }
            if source.bad_records_max.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
                return refuse(format!("{name}: expected bad_records_max from 0 to 1"));
            }
            for (limit, what) in
                [(source.max_epochs, "max_epochs"), (source.max_bytes, "max_bytes")]
            {
                if limit == Some(0) {
                    return refuse(format!("{name}: expected {what} of at least 1, got 0"));
                }
            }
        }
        Ok(())
    }

    /// The texts, with their own fields: `data.sources`, or the one that `data.text` is.
    pub fn texts(&self) -> Vec<SourceConfig> {
        let mut sources = match self.sources.is_empty() {
            true => vec![SourceConfig::from(self.text.clone())],
            false => self.sources.clone(),
        };
        for source in &mut sources {
            source.field.get_or_insert_with(|| self.field.clone());
            source.url_field.get_or_insert_with(|| self.url_field.clone());
            source.clean.get_or_insert_with(|| self.clean.clone());
            source.bad_records_max.get_or_insert(self.bad_records_max);
        }
        sources
    }

    /// How windows of `sequence_length` tokens are cut and marked, whatever opens documents.
    pub fn window_layout(&self, sequence_length: usize) -> WindowLayout {
        WindowLayout {
            sequence_length,
            document_masks: self.document_masks,
            opened: false,
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
    /// A `tokenizer.json`, the folder that holds one, or a file of ranks (`.tiktoken`).
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
