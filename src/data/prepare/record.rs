//! `prepared.json`: what a cache folder holds, written when everything else is on disk.
//!
//! Duty: the key that says which text and settings a folder was made from, and the identity of
//! the data that a run records. Prohibition: a folder without a readable record, or with a shard
//! that does not fit it, counts as not prepared; it is never repaired, only made again, and said.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Counts, Prepared, PreparedSource};
use crate::data::clean;
use crate::data::config::{DataConfig, SourceConfig};
use crate::data::dedupe::DedupeConfig;
use crate::data::error::DataError;
use crate::data::shard::Shard;
use crate::data::source::Corpus;
use crate::data::tokenize::Tokenizer;

const RECORD_FILE: &str = "prepared.json";

/// The contents of `prepared.json`.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) format: u32,
    pub(super) key: String,
    pub(super) identity: String,
    pub(super) sources: Vec<SourceRecord>,
}

/// One source, its shards by name.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceRecord {
    pub(super) name: String,
    pub(super) train: Vec<String>,
    pub(super) validation: Vec<String>,
    pub(super) counts: Counts,
}

impl Record {
    /// Changes when the same text and settings would give other shards.
    pub(super) const FORMAT: u32 = 2;

    /// Where the record of a folder lies.
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(RECORD_FILE)
    }

    /// The record of a folder, if there is one that this program understands.
    fn read(folder: &Path) -> Option<Self> {
        let text = fs::read(folder.join(RECORD_FILE)).ok()?;
        serde_json::from_slice::<Self>(&text).ok().filter(|record| record.format == Self::FORMAT)
    }

    /// Writes the record into a folder that nobody looks into yet.
    pub(super) fn save(&self, folder: &Path) -> Result<(), DataError> {
        let path = self.path(folder);
        let text = serde_json::to_vec_pretty(self).expect("a record is valid JSON");
        File::create(&path)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .map_err(DataError::io(&path, "write"))
    }

    pub(super) fn prepared(&self, folder: &Path, tokenizer: Tokenizer, reused: bool) -> Prepared {
        let paths = |names: &[String]| names.iter().map(|name| folder.join(name)).collect();
        let source = |source: &SourceRecord| PreparedSource {
            name: source.name.clone(),
            train: paths(&source.train),
            validation: paths(&source.validation),
            counts: source.counts,
        };
        Prepared {
            folder: folder.to_owned(),
            tokenizer,
            sources: self.sources.iter().map(source).collect(),
            identity: self.identity.clone(),
            reused,
            damaged: None,
        }
    }
}

/// The prepared data of `folder` if it is whole and was made from `key`; else what is wrong with
/// it, if there is any.
///
/// # Errors
/// [`DataError::CacheInUse`] if there is some, but made from something else.
pub(super) fn load(
    folder: &Path,
    key: &str,
) -> Result<Result<Prepared, Option<DataError>>, DataError> {
    let Some(record) = Record::read(folder) else { return Ok(Err(None)) };
    if record.key != key {
        return Err(DataError::CacheInUse { folder: folder.to_owned() });
    }
    Ok(whole(folder, &record).map_err(Some))
}

/// The prepared data of `folder` if it is whole and has this identity, whatever it was made from;
/// else what is wrong with it, if there is any.
pub(super) fn reopen(folder: &Path, identity: &str) -> Result<Prepared, Option<DataError>> {
    let record = Record::read(folder).filter(|record| record.identity == identity);
    whole(folder, &record.ok_or(None)?).map_err(Some)
}

/// Source and tokenizer of a shard, as the record beside it says.
pub(super) fn of_shard(shard: &Path) -> Option<(String, Tokenizer)> {
    let folder = shard.parent()?;
    let name = shard.file_name()?.to_str()?;
    let record = Record::read(folder)?;
    let holds = |source: &&SourceRecord| {
        source.train.iter().chain(&source.validation).any(|one| one == name)
    };
    let source = record.sources.iter().find(holds)?;
    Some((source.name.clone(), Tokenizer::load(folder).ok()?))
}

/// What a record says, if the files are those that it was written for.
fn whole(folder: &Path, record: &Record) -> Result<Prepared, DataError> {
    let tokenizer = Tokenizer::load(folder)?;
    if identity(folder, &tokenizer, &record.sources)? != record.identity {
        let (path, reason) = (record.path(folder), "its files are not those of it".to_owned());
        return Err(DataError::Shard { path, reason });
    }
    Ok(record.prepared(folder, tokenizer, true))
}

/// Names the text and settings: contents and relative names of the files, never where they lie.
///
/// # Errors
/// A file of a step that cannot be read.
pub(super) fn key(
    texts: &[SourceConfig],
    corpora: &[Corpus],
    config: &DataConfig,
    given: Option<&Tokenizer>,
) -> Result<String, DataError> {
    let mut hasher = blake3::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    add(b"octet prepared");
    add(&Record::FORMAT.to_le_bytes());
    for (text, corpus) in texts.iter().zip(corpora) {
        add(text.name.as_bytes());
        corpus.reading().for_each(|part| add(&part));
        if let Some(clean) = text.clean.as_ref().filter(|clean| !clean.is_empty()) {
            add(b"clean");
            add(&serde_json::to_vec(clean).expect("settings are valid JSON"));
            for file in clean.files() {
                add(&clean::digest_of(&file)?);
            }
        }
        add(&(corpus.files.len() as u64).to_le_bytes());
        for file in &corpus.files {
            add(file.name.as_bytes());
            add(&file.bytes.to_le_bytes());
            add(&file.digest);
            if let Some(format) = file.format_besides_name() {
                add(format.to_string().as_bytes());
            }
        }
    }
    match given {
        Some(tokenizer) => add(&tokenizer.digest()),
        None => {
            add(config.tokenizer.as_bytes());
            add(config.end_of_document.as_deref().unwrap_or_default().as_bytes());
        }
    }
    add(&config.validation_fraction.to_le_bytes());
    Ok(hasher.finalize().to_hex().to_string())
}

/// The key with what takes repetition out, if anything does.
///
/// # Errors
/// [`DataError::Config`] for a file that cannot be read.
pub(super) fn key_with(
    key: String,
    dedupe: &DedupeConfig,
    sets: Option<&Corpus>,
) -> Result<String, DataError> {
    if dedupe.is_empty() {
        return Ok(key);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.as_bytes());
    hasher.update(&serde_json::to_vec(dedupe).expect("settings are valid JSON"));
    for file in sets.iter().flat_map(|sets| &sets.files) {
        hasher.update(&file.digest);
    }
    for path in dedupe.files() {
        let read = File::open(&path).and_then(|file| hasher.update_reader(file).map(drop));
        read.map_err(|error| {
            let problem = format!("{}: cannot be read: {error}", path.display());
            DataError::Config { key: "data.dedupe", problem }
        })?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// blake3 over the tokenizer, the sources' names, and the digests of the tokens in every shard's
/// header.
pub(super) fn identity(
    folder: &Path,
    tokenizer: &Tokenizer,
    sources: &[SourceRecord],
) -> Result<String, DataError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"octet data 2");
    hasher.update(&tokenizer.digest());
    for source in sources {
        hasher.update(&(source.name.len() as u64).to_le_bytes());
        hasher.update(source.name.as_bytes());
        for names in [&source.train, &source.validation] {
            hasher.update(&(names.len() as u64).to_le_bytes());
            for name in names {
                let path: PathBuf = folder.join(name);
                let shard = Shard::open(&path)?;
                if shard.tokenizer() != tokenizer.digest() {
                    let reason = "it was made by another tokenizer".to_owned();
                    return Err(DataError::Shard { path, reason });
                }
                hasher.update(&shard.tokens().to_le_bytes());
                hasher.update(&shard.contents());
            }
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}
