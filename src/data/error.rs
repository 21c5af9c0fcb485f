//! The errors of data preparation and reading.
//!
//! Duty: one clear sentence for each, naming the key, file, line or byte. Prohibition: no
//! policy; the caller decides by [`DataError::is_user_error`] who has to act.

use std::path::{Path, PathBuf};

use super::source::Skipped;

/// What can go wrong between `data.text` and a batch.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A key of the configuration has an unusable value.
    #[error("{key}: {problem}")]
    Config {
        /// The key, for example `data.tokenizer`.
        key: &'static str,
        /// What was expected and what was found.
        problem: String,
    },
    /// A file or folder of text does not exist.
    #[error("{key}: {path} does not exist")]
    Missing {
        /// The key that names it.
        key: String,
        /// The source as it was given.
        path: PathBuf,
    },
    /// What was named is a pipe, a socket or a device.
    #[error("{key}: {path}: expected a file or a folder, got something that is neither")]
    Special {
        /// The key that names it.
        key: String,
        /// The path as it was given.
        path: PathBuf,
    },
    /// A text file that may not be passed over is not UTF-8.
    #[error("{key}: {path}: byte {offset} is not UTF-8; convert the file, or take it out")]
    NotUtf8 {
        /// The key that names the source.
        key: String,
        /// The file.
        path: PathBuf,
        /// Offset of the first byte that is not part of a valid character, from 0.
        offset: u64,
    },
    /// A file is not what it was when it was scanned.
    #[error("{path}: it changed while it was prepared; run the command again")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A compressed file is damaged, or is none.
    #[error(
        "{key}: {path}: expected {format} data, as its name says, but they cannot be decompressed \
         ({reason}): pack the file again, or take the ending away if it is not packed"
    )]
    Compressed {
        /// The key that names the source.
        key: String,
        /// How the file should be packed.
        format: &'static str,
        /// The file.
        path: PathBuf,
        /// What the decoder says.
        reason: String,
    },
    /// Too many records of a source are no documents.
    #[error(
        "{key}: {bad} of {records} records are bad, more than the share of {allowed} that \
         bad_records_max allows; the first: {first}"
    )]
    BadRecords {
        /// The key that names the source.
        key: String,
        /// Bad records so far.
        bad: u64,
        /// Records so far.
        records: u64,
        /// The share allowed.
        allowed: f64,
        /// Place and reason of the first.
        first: String,
    },
    /// The sources hold no text at all.
    #[error("{key}: no text found in {sources} ({skipped})")]
    EmptyCorpus {
        /// The key that names them.
        key: String,
        /// The sources as they were given.
        sources: String,
        /// What was passed over.
        skipped: Skipped,
    },
    /// `data.text = "cargo"` found none of the packages.
    #[error(
        "data.text: no package sources of this program were found below {folder}; \
         give a file or a folder of text with data.text=PATH"
    )]
    NoPackages {
        /// The registry folder that was searched.
        folder: PathBuf,
    },
    /// The preparation was told to end.
    #[error("the preparation of data was interrupted; the same command goes on with it")]
    Interrupted,
    /// The sources end before the run does.
    #[error(
        "data.sources: with every source at its max_epochs there are {samples} samples, but \
         run.steps and batch.global ask for {wanted}"
    )]
    SourcesEnd {
        /// Samples that there are.
        samples: u64,
        /// Samples of the run.
        wanted: u64,
    },
    /// A split has too few tokens for one window.
    #[error(
        "batch.sequence_length: expected less than the {tokens} tokens of {what}, got \
         {sequence_length}; {advice}"
    )]
    TooShort {
        /// The split, and of which source.
        what: String,
        /// What to change.
        advice: &'static str,
        /// Tokens in the stream.
        tokens: u64,
        /// Tokens per sample, without the last label.
        sequence_length: usize,
    },
    /// The tokenizer has more tokens than the model has rows.
    #[error(
        "data.tokenizer: {tokenizer} has {needed} tokens, but model.vocabulary is {limit}; \
         set model.vocabulary to at least {needed}"
    )]
    VocabularyTooSmall {
        /// The tokenizer as it was given.
        tokenizer: String,
        /// Its number of tokens.
        needed: usize,
        /// `model.vocabulary`.
        limit: usize,
    },
    /// A character that the tokenizer has no token for.
    #[error(
        "the character {character:?} at byte {offset} does not occur in the text that the \
         \"characters\" tokenizer was made from"
    )]
    UnknownCharacter {
        /// The character.
        character: char,
        /// Byte offset in the text given to `encode`.
        offset: usize,
    },
    /// A tokenizer file cannot be used.
    #[error("data.tokenizer: {path}: not a usable tokenizer: {reason}")]
    Tokenizer {
        /// The file, or the name of the tokenizer where there is none yet.
        path: PathBuf,
        /// What the reader says.
        reason: String,
    },
    /// `data.cache` holds something else.
    #[error(
        "data.cache: {folder} holds data prepared from other text or settings; \
         remove it or name another folder"
    )]
    CacheInUse {
        /// The folder.
        folder: PathBuf,
    },
    /// A shard cannot be opened: torn, truncated, or not a shard.
    #[error("{path}: not a usable shard: {reason}")]
    Shard {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A chunk of a shard does not have the bytes that were written.
    #[error(
        "{path}: chunk {chunk} (bytes {offset} to {end}) fails its checksum{}",
        aside.as_ref().map_or(String::new(), |to| format!(": put aside as {}", to.display()))
    )]
    Chunk {
        /// The file.
        path: PathBuf,
        /// The chunk, from 0.
        chunk: u64,
        /// Offset of its first byte in the file.
        offset: u64,
        /// Offset behind its last byte in the file.
        end: u64,
        /// The name that the file has taken.
        aside: Option<PathBuf>,
    },
    /// A read outside of the tokens that exist.
    #[error("tokens {start} to {end} were asked for, but there are {tokens}")]
    OutOfRange {
        /// First token asked for.
        start: u64,
        /// One behind the last token asked for.
        end: u64,
        /// Tokens that exist.
        tokens: u64,
    },
    /// The file system refused.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb: `read`, `write`, `rename`.
        action: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
}

impl DataError {
    /// True if the user's input is at fault (exit code 2), false if the world is: a disk, a
    /// damaged shard.
    pub fn is_user_error(&self) -> bool {
        match self {
            Self::Config { .. }
            | Self::Missing { .. }
            | Self::Special { .. }
            | Self::BadRecords { .. }
            | Self::NotUtf8 { .. }
            | Self::Compressed { .. }
            | Self::Changed { .. }
            | Self::SourcesEnd { .. }
            | Self::EmptyCorpus { .. }
            | Self::NoPackages { .. }
            | Self::TooShort { .. }
            | Self::VocabularyTooSmall { .. }
            | Self::UnknownCharacter { .. }
            | Self::Tokenizer { .. }
            | Self::CacheInUse { .. } => true,
            Self::Interrupted
            | Self::Shard { .. }
            | Self::Chunk { .. }
            | Self::OutOfRange { .. }
            | Self::Io { .. } => false,
        }
    }

    /// True if the text is not there.
    pub fn is_no_text(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::EmptyCorpus { .. } | Self::NoPackages { .. })
    }

    /// A stream that is too short for one window; whose it is, the caller adds.
    pub(crate) fn too_short(tokens: u64, sequence_length: usize) -> Self {
        let what = "the token stream".to_owned();
        let advice = "give more text or a shorter sequence";
        Self::TooShort { what, advice, tokens, sequence_length }
    }

    pub(crate) fn not_utf8(key: &str, path: &Path, offset: u64) -> Self {
        Self::NotUtf8 { key: key.to_owned(), path: path.to_owned(), offset }
    }

    /// Wraps a file system error: `.map_err(DataError::io(path, "read"))`.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }
}
