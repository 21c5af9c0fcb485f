//! From `data.text` to shards, once.
//!
//! Duty: scans the sources, makes or loads the tokenizer, encodes on all cores in document
//! order, cuts the token stream into training and validation, writes both as shards, and
//! remembers the result in `prepared.json`, which is written last. The next call with the same
//! text and settings only checks that it is all there. Ownership: the cache folder.
//! Limits: holds one batch of documents (16 MiB, or one larger document), its tokens, and 16
//! bytes per document. Prohibition: no result may depend on the number of cores.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::config::{DataConfig, TokenizerSpec};
use super::error::DataError;
use super::order::mix;
use super::shard::{SHARD_EXTENSION, Shard, ShardWriter};
use super::source::{Corpus, Skipped};
use super::tokenize::Tokenizer;
use encode::{Encoded, encode};
use record::Record;

mod encode;
mod record;

/// Tokens of a full shard.
const SHARD_TOKENS: u64 = 1 << 27;
/// Text that `bpe:N` learns from, about; larger corpora are sampled.
const SAMPLE_BYTES: u64 = 8 << 20;
/// The sample is made of blocks of at most so many bytes.
const SAMPLE_BLOCK: usize = 64 << 10;
/// Tokens that are copied at once.
const COPY_TOKENS: u64 = 1 << 18;
/// Temporary files of this age belong to nobody.
const STALE: Duration = Duration::from_secs(3600);

/// What the preparation is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Finding, checking and hashing files; in bytes, the total is not known.
    Scan,
    /// Reading text for the tokenizer, and making it; in bytes.
    Tokenizer,
    /// Encoding; in bytes.
    Encode,
    /// Writing shards; in tokens.
    Write,
}

/// How far a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Units done.
    pub done: u64,
    /// Units in all, 0 if unknown.
    pub total: u64,
}

/// Prepared data, ready for [`super::TokenStream::open`].
pub struct Prepared {
    /// The cache folder.
    pub folder: PathBuf,
    /// The tokenizer of the shards.
    pub tokenizer: Tokenizer,
    /// Shards of the training split, in order.
    pub train: Vec<PathBuf>,
    /// Shards of the validation split, in order; none if `data.validation_fraction` is 0.
    pub validation: Vec<PathBuf>,
    /// blake3 of the tokens of both splits and of the tokenizer, in hexadecimal.
    pub identity: String,
    /// Tokens of the training split.
    pub train_tokens: u64,
    /// Tokens of the validation split.
    pub validation_tokens: u64,
    /// UTF-8 bytes of the text of the training split.
    pub train_bytes: u64,
    /// UTF-8 bytes of the text of the validation split.
    pub validation_bytes: u64,
    /// Documents in both splits.
    pub documents: u64,
    /// Source files.
    pub files: u64,
    /// What was passed over.
    pub skipped: Skipped,
    /// True if nothing had to be done.
    pub reused: bool,
}

impl Prepared {
    /// UTF-8 bytes per token of the validation split (of training if there is none), for bits
    /// per byte: `loss / ln(2) / bytes_per_token`.
    pub fn bytes_per_token(&self) -> f64 {
        if self.validation_tokens > 0 {
            self.validation_bytes as f64 / self.validation_tokens as f64
        } else {
            self.train_bytes as f64 / self.train_tokens as f64
        }
    }
}

/// Prepares the data of `config`, or finds it prepared. `vocabulary_limit` is
/// `model.vocabulary`.
///
/// # Errors
/// Any [`DataError`]. After an error of the user nothing is left behind.
pub fn prepare(
    config: &DataConfig,
    vocabulary_limit: Option<usize>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Prepared, DataError> {
    config.validate()?;
    let spec = TokenizerSpec::parse(&config.tokenizer)?;
    let given = match &spec {
        TokenizerSpec::File(path) => Some(Tokenizer::from_file(path)?),
        _ => None,
    };
    let mut corpus = Corpus::scan(&config.text, &mut |done| {
        progress(Progress { stage: Stage::Scan, done, total: 0 });
    })?;
    let key = record::key(&corpus, config, given.as_ref());
    let folder = match &config.cache {
        Some(folder) => folder.clone(),
        None => Path::new("runs").join("cache").join(&key[..16]),
    };
    if let Some(prepared) = record::load(&folder, &key)? {
        check_vocabulary(config, &prepared.tokenizer, vocabulary_limit)?;
        return Ok(prepared);
    }
    let tokenizer = match given {
        Some(tokenizer) => tokenizer,
        None => make_tokenizer(&spec, &corpus, progress)?,
    };
    check_vocabulary(config, &tokenizer, vocabulary_limit)?;
    let made = create_folder(&folder)?;
    match build(config, &mut corpus, tokenizer, key, &folder, progress) {
        Ok(prepared) => Ok(prepared),
        Err(error) => {
            // Only folders that this call made, and only while they are empty.
            made.iter().take_while(|folder| fs::remove_dir(folder).is_ok()).count();
            Err(error)
        }
    }
}

/// Prepared data that is in `folder` and has this identity, though its text may be gone.
pub fn reopen(folder: &Path, identity: &str) -> Option<Prepared> {
    record::reopen(folder, identity)
}

/// Encodes and writes everything into `folder`.
fn build(
    config: &DataConfig,
    corpus: &mut Corpus,
    tokenizer: Tokenizer,
    key: String,
    folder: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Prepared, DataError> {
    remove_stale(folder);
    let spool = Spool(folder.join(format!("spool.{}.tmp", std::process::id())));
    let encoded = encode(corpus, &tokenizer, &spool.0, progress)?;
    corpus.skipped.empty += encoded.empty;
    if encoded.text_bytes.is_empty() {
        return Err(corpus.no_text(&config.text));
    }
    let tokens = encoded.shard.tokens();
    let cut = ((1.0 - config.validation_fraction) * tokens as f64).floor() as u64;
    let validation_bytes = bytes_behind(&encoded, cut, &tokenizer)?;
    let mut writer = Splitter { encoded: &encoded, tokenizer: &tokenizer, folder, progress };
    let train = writer.write("train", 0..cut)?;
    let validation = writer.write("validation", cut..tokens)?;
    tokenizer.save(folder)?;
    let record = Record {
        format: Record::FORMAT,
        key,
        identity: record::identity(folder, &tokenizer, &train, &validation)?,
        train,
        validation,
        train_tokens: cut,
        validation_tokens: tokens - cut,
        train_bytes: encoded.text_bytes.iter().sum::<u64>() - validation_bytes,
        validation_bytes,
        documents: encoded.text_bytes.len() as u64,
        files: corpus.files.len() as u64,
        skipped: corpus.skipped,
    };
    record.save(folder)?;
    Ok(record.prepared(folder, tokenizer, false))
}

fn check_vocabulary(
    config: &DataConfig,
    tokenizer: &Tokenizer,
    limit: Option<usize>,
) -> Result<(), DataError> {
    let needed = tokenizer.vocabulary();
    match limit {
        Some(limit) if needed > limit => Err(DataError::VocabularyTooSmall {
            tokenizer: format!("\"{}\"", config.tokenizer),
            needed,
            limit,
        }),
        _ => Ok(()),
    }
}

fn make_tokenizer(
    spec: &TokenizerSpec,
    corpus: &Corpus,
    progress: &mut dyn FnMut(Progress),
) -> Result<Tokenizer, DataError> {
    let mut done = 0;
    let mut read = |bytes: usize| {
        done += bytes as u64;
        progress(Progress { stage: Stage::Tokenizer, done, total: corpus.bytes });
    };
    match spec {
        TokenizerSpec::Bytes => Ok(Tokenizer::bytes()),
        TokenizerSpec::File(path) => Tokenizer::from_file(path),
        TokenizerSpec::Characters => {
            let mut alphabet = BTreeSet::new();
            let mut documents = 0;
            corpus.for_each(&mut |document| {
                alphabet.extend(document.text.chars());
                documents += 1;
                read(document.text.len());
                Ok(())
            })?;
            Ok(Tokenizer::characters(alphabet, documents > 1))
        }
        TokenizerSpec::Bpe(size) => {
            Tokenizer::train_bpe(*size, &sample(corpus, SAMPLE_BYTES, &mut read)?)
        }
    }
}

/// Blocks of the corpus, about `bytes` in all, chosen by their number alone.
fn sample(
    corpus: &Corpus,
    bytes: u64,
    read: &mut dyn FnMut(usize),
) -> Result<Vec<String>, DataError> {
    let mut blocks = Vec::new();
    let mut number = 0;
    corpus.for_each(&mut |document| {
        let mut rest = document.text;
        while !rest.is_empty() {
            let (block, after) = rest.split_at(rest.floor_char_boundary(SAMPLE_BLOCK));
            // Keeps the share bytes / corpus.bytes of all numbers; all of a small corpus.
            let share = u128::from(mix(number)) * u128::from(corpus.bytes);
            if share >> 64 < u128::from(bytes) {
                blocks.push(block.to_owned());
            }
            number += 1;
            rest = after;
        }
        read(document.text.len());
        Ok(())
    })?;
    Ok(blocks)
}

/// Bytes of text behind token number `cut`, which may lie inside a document.
fn bytes_behind(encoded: &Encoded, cut: u64, tokenizer: &Tokenizer) -> Result<u64, DataError> {
    let shard = &encoded.shard;
    let whole = shard.documents_before(cut)?;
    let mut bytes: u64 = encoded.text_bytes[whole as usize..].iter().sum();
    let end = if whole < shard.documents() { shard.document_start(whole)? } else { shard.tokens() };
    if cut < end {
        // The document before is cut: `whole` is at least 1, since the first begins at 0.
        let start = shard.document_start(whole - 1)?;
        bytes += if tokenizer.is_byte_exact() {
            let mut tail = vec![0u32; (end - cut) as usize];
            shard.read(cut, &mut tail)?;
            tokenizer.decode_bytes(&tail).len() as u64
        } else {
            let text = u128::from(encoded.text_bytes[whole as usize - 1]);
            (text * u128::from(end - cut) / u128::from(end - start)) as u64
        };
    }
    Ok(bytes)
}

/// Writes parts of the encoded tokens as shards of the final names.
struct Splitter<'a> {
    encoded: &'a Encoded,
    tokenizer: &'a Tokenizer,
    folder: &'a Path,
    progress: &'a mut dyn FnMut(Progress),
}

impl Splitter<'_> {
    /// Returns the names of the shards.
    fn write(&mut self, split: &str, range: Range<u64>) -> Result<Vec<String>, DataError> {
        let mut names = Vec::new();
        let mut start = range.start;
        while start < range.end {
            let end = (start + SHARD_TOKENS).min(range.end);
            let name = format!("{split}-{:05}.{SHARD_EXTENSION}", names.len());
            self.write_shard(&name, start..end)?;
            names.push(name);
            start = end;
        }
        Ok(names)
    }

    fn write_shard(&mut self, name: &str, range: Range<u64>) -> Result<(), DataError> {
        let source: &Shard = &self.encoded.shard;
        let path = self.folder.join(name);
        let mut writer =
            ShardWriter::create(&path, self.tokenizer.vocabulary(), self.tokenizer.digest())?;
        let mut document = source.documents_before(range.start)?;
        let mut at = range.start;
        let mut buffer = Vec::new();
        while at < range.end {
            let mut end = range.end.min(at + COPY_TOKENS);
            if document < source.documents() {
                let start = source.document_start(document)?;
                if start == at {
                    writer.begin_document();
                    document += 1;
                    continue;
                }
                end = end.min(start);
            }
            buffer.resize((end - at) as usize, 0u32);
            source.read(at, &mut buffer)?;
            writer.push(&buffer)?;
            at = end;
            (self.progress)(Progress { stage: Stage::Write, done: at, total: source.tokens() });
        }
        writer.finish()?;
        Ok(())
    }
}

/// The file between encoding and splitting, gone with its owner.
struct Spool(PathBuf);

impl Drop for Spool {
    fn drop(&mut self) {
        // It may not exist yet; and what cannot be removed now is removed as stale later.
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes `folder`; returns the folders that did not exist, innermost first.
fn create_folder(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let missing: Vec<PathBuf> = folder
        .ancestors()
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
        .map(Path::to_owned)
        .collect();
    fs::create_dir_all(folder).map_err(DataError::io(folder, "create"))?;
    Ok(missing)
}

/// Removes what a killed preparation left behind. Others may be at work in the same folder.
fn remove_stale(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let changed = entry.metadata().and_then(|data| data.modified());
        let age = changed.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
        if path.extension().is_some_and(|end| end == "tmp") && age.is_ok_and(|age| age > STALE) {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests;
