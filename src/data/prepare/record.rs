//! `prepared.json`: what a cache folder holds, written when everything else is on disk.
//!
//! Duty: the key that says which text and settings a folder was made from, and the identity of
//! the data that a run records. Prohibition: a folder without a readable record, or with a shard
//! that does not fit it, counts as not prepared; it is never repaired, only made again.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Prepared;
use crate::data::config::DataConfig;
use crate::data::error::DataError;
use crate::data::shard::{Shard, sync_folder_of, temporary_path};
use crate::data::source::{Corpus, Skipped};
use crate::data::tokenize::Tokenizer;

const RECORD_FILE: &str = "prepared.json";

/// The contents of `prepared.json`.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) format: u32,
    pub(super) key: String,
    pub(super) identity: String,
    pub(super) train: Vec<String>,
    pub(super) validation: Vec<String>,
    pub(super) train_tokens: u64,
    pub(super) validation_tokens: u64,
    pub(super) train_bytes: u64,
    pub(super) validation_bytes: u64,
    pub(super) documents: u64,
    pub(super) files: u64,
    pub(super) skipped: Skipped,
}

impl Record {
    /// Changes when the same text and settings would give other shards.
    pub(super) const FORMAT: u32 = 1;

    /// The record of a folder, if there is one that this program understands.
    fn read(folder: &Path) -> Option<Self> {
        let text = fs::read(folder.join(RECORD_FILE)).ok()?;
        serde_json::from_slice::<Self>(&text).ok().filter(|record| record.format == Self::FORMAT)
    }

    /// Writes the record atomically.
    pub(super) fn save(&self, folder: &Path) -> Result<(), DataError> {
        let path = folder.join(RECORD_FILE);
        let temporary = temporary_path(&path);
        let text = serde_json::to_vec_pretty(self).expect("a record is valid JSON");
        File::create(&temporary)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .map_err(DataError::io(&temporary, "write"))?;
        fs::rename(&temporary, &path).map_err(DataError::io(&path, "rename"))?;
        sync_folder_of(&path)
    }

    pub(super) fn prepared(&self, folder: &Path, tokenizer: Tokenizer, reused: bool) -> Prepared {
        let paths = |names: &[String]| names.iter().map(|name| folder.join(name)).collect();
        Prepared {
            folder: folder.to_owned(),
            tokenizer,
            train: paths(&self.train),
            validation: paths(&self.validation),
            identity: self.identity.clone(),
            train_tokens: self.train_tokens,
            validation_tokens: self.validation_tokens,
            train_bytes: self.train_bytes,
            validation_bytes: self.validation_bytes,
            documents: self.documents,
            files: self.files,
            skipped: self.skipped,
            reused,
        }
    }
}

/// The prepared data of `folder` if it is whole and was made from `key`.
///
/// # Errors
/// [`DataError::CacheInUse`] if it is whole but was made from something else.
pub(super) fn load(folder: &Path, key: &str) -> Result<Option<Prepared>, DataError> {
    let Some(record) = Record::read(folder) else { return Ok(None) };
    if record.key != key {
        return Err(DataError::CacheInUse { folder: folder.to_owned() });
    }
    Ok(whole(folder, &record))
}

/// The prepared data of `folder` if it is whole and has this identity, whatever it was made from.
pub(super) fn reopen(folder: &Path, identity: &str) -> Option<Prepared> {
    let record = Record::read(folder).filter(|record| record.identity == identity)?;
    whole(folder, &record)
}

/// What a record says, if the files are those that it was written for.
fn whole(folder: &Path, record: &Record) -> Option<Prepared> {
    let tokenizer = Tokenizer::load(folder).ok()?;
    match identity(folder, &tokenizer, &record.train, &record.validation) {
        Ok(identity) if identity == record.identity => {
            Some(record.prepared(folder, tokenizer, true))
        }
        _ => None,
    }
}

/// Names the text and settings: contents and relative names of the files, never where they lie.
pub(super) fn key(corpus: &Corpus, config: &DataConfig, given: Option<&Tokenizer>) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    add(b"octet prepared");
    add(&Record::FORMAT.to_le_bytes());
    for file in &corpus.files {
        add(file.name.as_bytes());
        add(&file.bytes.to_le_bytes());
        add(&file.digest);
    }
    match given {
        Some(tokenizer) => add(&tokenizer.digest()),
        None => add(config.tokenizer.as_bytes()),
    }
    add(&config.validation_fraction.to_le_bytes());
    hasher.finalize().to_hex().to_string()
}

/// blake3 over the tokenizer and the digests of the tokens in every shard's header.
pub(super) fn identity(
    folder: &Path,
    tokenizer: &Tokenizer,
    train: &[String],
    validation: &[String],
) -> Result<String, DataError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"octet data 1");
    hasher.update(&tokenizer.digest());
    for names in [train, validation] {
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
    Ok(hasher.finalize().to_hex().to_string())
}
