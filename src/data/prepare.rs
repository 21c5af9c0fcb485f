//! From text to shards, once.
//!
//! Duty: scans the sources, takes their documents through the stages of cleaning ([`chain`]),
//! makes or loads the tokenizer, encodes on all cores in document order, cuts each source's token
//! stream into training and validation, writes both as shards, and remembers the result in
//! `prepared.json`, which is written last. The next call with the same text and settings only
//! checks that it is all there. Ownership: the cache folder, which is locked while it is written;
//! everything is made in a folder inside it and moved at the end. Limits: holds some megabytes of
//! text and tokens for each core, and 16 bytes per document. Prohibition: no result may depend on
//! the number of cores.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::config::{DataConfig, SourceConfig, TokenizerSpec};
use super::error::DataError;
use super::ordered::threads;
use super::source::{Corpus, Skipped};
use super::tokenize::{Tokenizer, TokenizerOptions};
use chain::dedupe::Against;
use chain::{Done, Stages};
use encode::encode;
use place::Place;
use record::{Record, SourceRecord};

mod chain;
mod encode;
mod learn;
mod place;
mod record;
mod splits;

/// What the preparation is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Finding, checking and hashing files; in bytes, the total is not known.
    Scan,
    /// Waiting until another process has prepared the same data.
    Wait,
    /// Changing and dropping documents; in bytes.
    Clean,
    /// Looking for what stands in the text more than once; in bytes of one reading.
    Dedupe,
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

/// Sees the progress, many times a second, and may end the preparation.
pub type Watcher<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// A watcher with its answer as an error.
pub(super) struct Watch<'a>(Watcher<'a>);

impl Watch<'_> {
    fn tell(&mut self, stage: Stage, done: u64, total: u64) -> Result<(), DataError> {
        match (self.0)(Progress { stage, done, total }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(DataError::Interrupted),
        }
    }
}

/// Prepared data, ready for [`super::TokenStream::open`].
pub struct Prepared {
    /// The cache folder.
    pub folder: PathBuf,
    /// The tokenizer of the shards.
    pub tokenizer: Tokenizer,
    /// In the order of [`DataConfig::texts`].
    pub sources: Vec<PreparedSource>,
    /// blake3 of the tokenizer and of every source's name and tokens, in hexadecimal.
    pub identity: String,
    /// True if nothing had to be done.
    pub reused: bool,
}

/// One source of prepared data.
#[derive(Clone, Debug, PartialEq)]
pub struct PreparedSource {
    /// Its name; empty for `data.text`.
    pub name: String,
    /// Shards of the training split, in order.
    pub train: Vec<PathBuf>,
    /// Shards of the validation split, in order; none if `data.validation_fraction` is 0.
    pub validation: Vec<PathBuf>,
    /// How much it is.
    pub counts: Counts,
}

/// How much a source holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Counts {
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
}

impl Counts {
    /// Adds what another source holds.
    pub fn add(&mut self, other: &Self) {
        self.train_tokens += other.train_tokens;
        self.validation_tokens += other.validation_tokens;
        self.train_bytes += other.train_bytes;
        self.validation_bytes += other.validation_bytes;
        self.documents += other.documents;
        self.files += other.files;
        self.skipped.add(&other.skipped);
    }

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
/// Any [`DataError`]. After an error nothing is left behind but what was there before.
pub fn prepare(
    config: &DataConfig,
    vocabulary_limit: Option<usize>,
    watcher: Watcher<'_>,
) -> Result<Prepared, DataError> {
    config.validate()?;
    let watch = &mut Watch(watcher);
    let spec = TokenizerSpec::parse(&config.tokenizer)?;
    let given = match &spec {
        TokenizerSpec::File(path) => Some(Tokenizer::from_file(path, options(config))?),
        _ => None,
    };
    if let Some(tokenizer) = &given {
        check_vocabulary(config, tokenizer, vocabulary_limit)?;
    }
    let texts = config.texts();
    let mut corpora = Vec::with_capacity(texts.len());
    let mut before = 0;
    for text in &texts {
        let scanned = Corpus::scan(text, config.bad_lines, &mut |done| {
            watch.tell(Stage::Scan, before + done, 0)
        })?;
        before += scanned.bytes;
        corpora.push(scanned);
    }
    let sets = evaluation_sets(config)?;
    let key = record::key(&texts, &corpora, config, given.as_ref());
    let key = record::key_with(key, &config.dedupe, sets.as_ref())?;
    let folder = match &config.cache {
        Some(folder) => folder.clone(),
        None => Path::new("runs").join("cache").join(&key[..16]),
    };
    if let Some(prepared) = record::load(&folder, &key)? {
        check_vocabulary(config, &prepared.tokenizer, vocabulary_limit)?;
        return Ok(prepared);
    }
    let place = Place::claim(&folder, &key, watch)?;
    // Another process may have prepared it while this one waited.
    if let Some(prepared) = record::load(&folder, &key)? {
        return Ok(prepared);
    }
    let making = place.making().to_owned();
    let mut stages = Stages::open(&making, &key);
    let skipped: Vec<Found> = corpora.iter().map(Found::of).collect();
    let names = |corpus: &Corpus| corpus.files.iter().map(|file| file.name.clone()).collect();
    let files: Vec<Vec<String>> = corpora.iter().map(names).collect();
    let cleaned = stages.run(&texts, corpora, watch)?;
    let against = Against { config: &config.dedupe, sets: sets.as_ref(), files: &files };
    let cleaned = stages.dedupe(&against, &texts, cleaned, watch)?;
    let (corpora, done): (Vec<Corpus>, Vec<Done>) = cleaned.into_iter().unzip();
    let found: Vec<Found> = skipped.into_iter().zip(&done).map(Found::and).collect();
    let tokenizer = match given {
        Some(tokenizer) => tokenizer,
        None => learn::tokenizer(&spec, config, &corpora, watch)?,
    };
    check_vocabulary(config, &tokenizer, vocabulary_limit)?;
    let sources = Sources { texts: &texts, corpora: &corpora, found: &found };
    build(config, &sources, tokenizer, key, (place, stages), watch)
}

/// The evaluation sets that the data must not hold, if there are any.
fn evaluation_sets(config: &DataConfig) -> Result<Option<Corpus>, DataError> {
    let Some(sets) = &config.dedupe.decontaminate else { return Ok(None) };
    let name = "data.dedupe.decontaminate.text".to_owned();
    let field = Some(sets.field.clone().unwrap_or_else(|| "text".to_owned()));
    let source = SourceConfig { name, field, ..sets.text.clone().into() };
    Corpus::scan(&source, config.bad_lines, &mut |_| Ok(())).map(Some)
}

/// What was found and passed over before the text is encoded.
#[derive(Clone, Copy)]
struct Found {
    files: u64,
    skipped: Skipped,
}

impl Found {
    fn of(corpus: &Corpus) -> Self {
        Self { files: corpus.files.len() as u64, skipped: corpus.skipped }
    }

    /// And what the stages passed over.
    fn and((mut found, done): (Self, &Done)) -> Self {
        found.skipped.empty += done.passed_over.empty;
        found.skipped.bad_lines += done.passed_over.bad_lines;
        found
    }
}

/// The documents that are to be encoded.
struct Sources<'a> {
    texts: &'a [SourceConfig],
    corpora: &'a [Corpus],
    found: &'a [Found],
}

/// Text that is read for [`tokenizer_ahead`], at most.
const AHEAD_BYTES: u64 = 32 << 20;

/// The tokenizer that [`prepare`] would load or make of the text, without preparing anything;
/// `None` if its text is not there, or too large to be read for that.
///
/// # Errors
/// What [`prepare`] would refuse.
pub fn tokenizer_ahead(
    config: &DataConfig,
    vocabulary_limit: Option<usize>,
) -> Result<Option<Tokenizer>, DataError> {
    config.validate()?;
    let spec = TokenizerSpec::parse(&config.tokenizer)?;
    let mut corpora = Vec::new();
    if matches!(spec, TokenizerSpec::Characters | TokenizerSpec::Bpe(_)) {
        let mut before = 0;
        for text in config.texts() {
            let scanned = Corpus::scan(&text, config.bad_lines, &mut |done| {
                if before + done > AHEAD_BYTES { Err(DataError::Interrupted) } else { Ok(()) }
            });
            match scanned {
                Ok(corpus) => {
                    before += corpus.bytes;
                    corpora.push(corpus);
                }
                Err(DataError::Interrupted) => return Ok(None),
                Err(missing) if missing.is_no_text() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
    let mut goes_on = |_| ControlFlow::Continue(());
    let tokenizer = learn::tokenizer(&spec, config, &corpora, &mut Watch(&mut goes_on))?;
    check_vocabulary(config, &tokenizer, vocabulary_limit)?;
    Ok(Some(tokenizer))
}

/// Prepared data that is in `folder` and has this identity, though its text may be gone.
pub fn reopen(folder: &Path, identity: &str) -> Option<Prepared> {
    record::reopen(folder, identity)
}

/// The prepared data that a shard belongs to, if its folder holds any: the source's name, and
/// the tokenizer.
pub fn of_shard(shard: &Path) -> Option<(String, Tokenizer)> {
    record::of_shard(shard)
}

fn options(config: &DataConfig) -> TokenizerOptions<'_> {
    let split = config.split.as_deref();
    TokenizerOptions { split, end_of_document: config.end_of_document.as_deref() }
}

/// Encodes and writes everything into a place.
fn build(
    config: &DataConfig,
    input: &Sources<'_>,
    tokenizer: Tokenizer,
    key: String,
    (mut place, stages): (Place, Stages<'_>),
    watch: &mut Watch<'_>,
) -> Result<Prepared, DataError> {
    let Sources { texts, corpora, found } = *input;
    let total: u64 = corpora.iter().map(|corpus| corpus.bytes).sum();
    let mut done = 0;
    let mut sources = Vec::with_capacity(corpora.len());
    for ((text, corpus), found) in texts.iter().zip(corpora).zip(found) {
        let spool = place.file("spool");
        let watch = &mut Watch(&mut |progress: Progress| {
            let encodes = progress.stage == Stage::Encode;
            (watch.0)(match encodes {
                true => Progress { done: done + progress.done, total, ..progress },
                false => progress,
            })
        });
        let encoded = encode(corpus, &tokenizer, &spool, threads(), watch)?;
        let mut skipped = found.skipped;
        skipped.empty += encoded.passed_over.empty;
        skipped.bad_lines += encoded.passed_over.bad_lines;
        if encoded.text_bytes.is_empty() {
            return Err(corpus.no_text(skipped));
        }
        let source = splits::write(
            &splits::Splits { config, name: &text.name, tokenizer: &tokenizer, encoded: &encoded },
            &mut place,
            watch,
        )?;
        let counts = Counts { files: found.files, skipped, ..source.counts };
        sources.push(SourceRecord { counts, ..source });
        fs::remove_file(&spool).map_err(DataError::io(&spool, "remove"))?;
        done += corpus.bytes;
    }
    stages.remove()?;
    tokenizer.save(place.making())?;
    let identity = record::identity(place.making(), &tokenizer, &sources)?;
    let record = Record { format: Record::FORMAT, key, identity, sources };
    place.finish(&record)?;
    Ok(record.prepared(place.folder(), tokenizer, false))
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

#[cfg(test)]
mod tests;
