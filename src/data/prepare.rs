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

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::config::{DataConfig, SourceConfig, TokenizerSpec};
use super::error::DataError;
use super::ordered::threads;
use super::report::{Report, SourceReport, by_logarithm};
use super::source::{Corpus, Skipped};
use super::tokenize::{Tokenizer, TokenizerOptions};
use chain::dedupe::Against;
use chain::{Done, Stages};
use encode::{Encoded, encode};
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
    /// What was wrong with what was there, so that it was made again from the text.
    pub damaged: Option<String>,
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
        let scanned = Corpus::scan(text, &mut |done| watch.tell(Stage::Scan, before + done, 0))?;
        before += scanned.bytes;
        corpora.push(scanned);
    }
    let sets = evaluation_sets(config)?;
    let key = record::key(&texts, &corpora, config, given.as_ref())?;
    let key = record::key_with(key, &config.dedupe, sets.as_ref())?;
    let folder = match &config.cache {
        Some(folder) => folder.clone(),
        None => Path::new("runs").join("cache").join(&key[..16]),
    };
    // One name for a file, from whichever folder it is read again.
    let folder = std::path::absolute(&folder).unwrap_or(folder);
    if let Ok(prepared) = record::load(&folder, &key)? {
        check_vocabulary(config, &prepared.tokenizer, vocabulary_limit)?;
        return Ok(prepared.found_beside(&corpora));
    }
    let place = Place::claim(&folder, &key, watch)?;
    // Another process may have prepared it while this one waited.
    let damage = match record::load(&folder, &key)? {
        Ok(prepared) => {
            check_vocabulary(config, &prepared.tokenizer, vocabulary_limit)?;
            return Ok(prepared.found_beside(&corpora));
        }
        Err(damage) => damage,
    };
    let making = place.making().to_owned();
    let mut stages = Stages::open(&making, &key);
    let found: Vec<Found> = corpora.iter().map(Found::of).collect();
    let files: Vec<Vec<String>> = found.iter().map(|found| found.names.clone()).collect();
    let mut clock = Clock::new();
    let cleaned = stages.run(&texts, corpora, watch)?;
    let against = Against { config: &config.dedupe, sets: sets.as_ref(), files: &files };
    let cleaned = stages.dedupe(&against, &texts, cleaned, watch)?;
    let (corpora, done): (Vec<Corpus>, Vec<Done>) = cleaned.into_iter().unzip();
    clock.lap("clean");
    let tokenizer = match given {
        Some(tokenizer) => tokenizer,
        None => learn::tokenizer(&spec, config, &corpora, watch)?,
    };
    check_vocabulary(config, &tokenizer, vocabulary_limit)?;
    clock.lap("tokenizer");
    let sources = Sources { texts: &texts, corpora: &corpora, found: &found, done: &done };
    let made = build(config, &sources, tokenizer, key, (place, stages, clock), watch)?;
    let again = |damage| format!("{damage}: the data were made again from their text");
    Ok(Prepared { damaged: damage.map(again), ..made })
}

impl Prepared {
    /// The same, of text beside which other files are passed over than when it was prepared. What
    /// is empty or bad inside its files is as it was.
    fn found_beside(mut self, corpora: &[Corpus]) -> Self {
        for (source, Corpus { skipped, .. }) in self.sources.iter_mut().zip(corpora) {
            let Skipped { empty, bad_lines, .. } = source.counts.skipped;
            source.counts.skipped = Skipped { empty, bad_lines, ..*skipped };
        }
        self
    }
}

/// Seconds of each stage.
struct Clock {
    at: Instant,
    seconds: BTreeMap<String, f64>,
}

impl Clock {
    fn new() -> Self {
        Self { at: Instant::now(), seconds: BTreeMap::new() }
    }

    fn lap(&mut self, stage: &str) {
        let before = std::mem::replace(&mut self.at, Instant::now());
        self.seconds.insert(stage.to_owned(), before.elapsed().as_secs_f64());
    }
}

/// The evaluation sets that the data must not hold, if there are any.
fn evaluation_sets(config: &DataConfig) -> Result<Option<Corpus>, DataError> {
    let Some(sets) = &config.dedupe.decontaminate else { return Ok(None) };
    let name = "data.dedupe.decontaminate.text".to_owned();
    let field = Some(sets.field.clone().unwrap_or_else(|| "text".to_owned()));
    // What is passed over of an evaluation set is not looked for in the data.
    let bad_records_max = Some(0.0);
    let source = SourceConfig { name, field, bad_records_max, ..sets.text.clone().into() };
    Corpus::scan_whole(&source).map(Some)
}

/// What was found and passed over before the text is encoded.
struct Found {
    skipped: Skipped,
    /// Files that can be read.
    files: u64,
    /// Names of the files, for the report.
    names: Vec<String>,
    report: SourceReport,
}

impl Found {
    fn of(corpus: &Corpus) -> Self {
        let mut report = SourceReport { bytes: corpus.bytes, ..SourceReport::default() };
        let readable = || corpus.files.iter().filter(|file| !file.is_damaged());
        for file in readable() {
            *report.formats.entry(file.format.to_string()).or_default() += 1;
        }
        let names = corpus.files.iter().map(|file| file.name.clone()).collect();
        Self { skipped: corpus.skipped, files: readable().count() as u64, names, report }
    }

    /// And what became of the documents: what the stages did, and what encoding found.
    fn reported(
        &self,
        done: &Done,
        encoded: &Encoded,
        counts: &Counts,
    ) -> Result<SourceReport, DataError> {
        let mut report = SourceReport {
            skipped: counts.skipped,
            steps: done.steps.clone(),
            documents: counts.documents,
            text_bytes: counts.train_bytes + counts.validation_bytes,
            train_tokens: counts.train_tokens,
            validation_tokens: counts.validation_tokens,
            sizes: by_logarithm(encoded.text_bytes.iter().copied()),
            lengths: by_logarithm(encoded.lengths()?.into_iter()),
            ..self.report.clone()
        };
        let bad = [&done.passed_over, &encoded.passed_over];
        let bad: Vec<_> = bad.into_iter().flat_map(|count| count.examples.clone()).collect();
        report.name_files(&self.names, &bad);
        Ok(report)
    }
}

/// The documents that are to be encoded.
struct Sources<'a> {
    texts: &'a [SourceConfig],
    corpora: &'a [Corpus],
    found: &'a [Found],
    done: &'a [Done],
}

/// Text that is read for [`tokenizer_ahead`], at most.
const AHEAD_BYTES: u64 = 32 << 20;

/// The tokenizer that [`prepare`] would load or make of the text, without preparing anything;
/// `None` if its text is not there, too large to be read for that, or cleaned first.
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
        // It would be learned from what cleaning leaves.
        let texts = config.texts();
        let mut chains = texts.iter().filter_map(|text| text.clean.as_ref());
        if chains.any(|chain| !chain.is_empty()) || !config.dedupe.is_empty() {
            return Ok(None);
        }
        let mut before = 0;
        for text in config.texts() {
            let scanned = Corpus::scan(&text, &mut |done| {
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
///
/// # Errors
/// What is wrong with it; nothing if there is none.
pub fn reopen(folder: &Path, identity: &str) -> Result<Prepared, Option<DataError>> {
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
    (mut place, stages, mut clock): (Place, Stages<'_>, Clock),
    watch: &mut Watch<'_>,
) -> Result<Prepared, DataError> {
    let Sources { texts, corpora, .. } = *input;
    let vocabulary = tokenizer.vocabulary();
    let mut report =
        Report { tokenizer: config.tokenizer.clone(), vocabulary, ..Report::default() };
    let total: u64 = corpora.iter().map(|corpus| corpus.bytes).sum();
    let mut done = 0;
    let mut sources = Vec::with_capacity(corpora.len());
    for (number, (text, corpus)) in texts.iter().zip(corpora).enumerate() {
        let (found, passed_over) = (&input.found[number], &input.done[number].passed_over);
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
        for count in [passed_over, &encoded.passed_over] {
            skipped.empty += count.empty;
            skipped.bad_lines += count.bad_lines;
        }
        if encoded.text_bytes.is_empty() {
            return Err(corpus.no_text(skipped));
        }
        let source = splits::write(
            &splits::Splits { config, name: &text.name, tokenizer: &tokenizer, encoded: &encoded },
            &mut place,
            watch,
        )?;
        let files = found.files;
        let counts = Counts { files, skipped, ..source.counts };
        let reported = found.reported(&input.done[number], &encoded, &counts)?;
        report.sources.push(SourceReport { name: text.name.clone(), ..reported });
        sources.push(SourceRecord { counts, ..source });
        fs::remove_file(&spool).map_err(DataError::io(&spool, "remove"))?;
        done += corpus.bytes;
    }
    stages.remove()?;
    clock.lap("encode");
    report.seconds = clock.seconds;
    report.save(place.making())?;
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
