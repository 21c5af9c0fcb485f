//! The keys of earlier data on disk, so that new data can be compared with them.
//!
//! Duty: a file of sorted keys, mapped when it is read, and what they were made with. Limits: 8
//! bytes for each key, none of it in memory. Ownership: a file that is written under another name
//! and moved when it is whole. Prohibition: keys of other settings are never compared.

use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::minhash::MinHashConfig;
use crate::data::error::DataError;

const MAGIC: u64 = u64::from_le_bytes(*b"octminh1");
/// Magic, words, bands, rows, seed, keys, and the blake3 of these and of the keys in four.
const HEADER_WORDS: usize = 10;
const KEY: &str = "data.dedupe.near.against";

/// An index that is open.
pub(super) struct Index(Mmap);

impl Index {
    /// Opens and checks an index.
    ///
    /// # Errors
    /// [`DataError::Config`] if it is none, is damaged, or was made with other settings;
    /// [`DataError::Io`].
    pub(super) fn open(path: &Path, config: MinHashConfig) -> Result<Self, DataError> {
        let refuse = |what: &str| {
            let problem = format!("{}: {what}", path.display());
            Err(DataError::Config { key: KEY, problem })
        };
        match fs::metadata(path) {
            Ok(file) if file.is_file() && file.len() >= HEADER_WORDS as u64 * 8 => {}
            _ => return refuse("expected an index that `save` wrote"),
        }
        let file = File::open(path).map_err(DataError::io(path, "open"))?;
        // SAFETY: the file is read only, and nobody changes an index that has its name.
        let map = unsafe { Mmap::map(&file) }.map_err(DataError::io(path, "map"))?;
        let index = Self(map);
        if !index.0.len().is_multiple_of(8) || index.words()[0] != MAGIC {
            return refuse("expected an index that `save` wrote");
        }
        let [_, words, bands, rows, seed, keys, hash @ ..] = index.words() else {
            return refuse("it is cut off");
        };
        let made = MinHashConfig {
            words: *words as usize,
            bands: *bands as usize,
            rows: *rows as usize,
            seed: *seed,
        };
        if made != config {
            return refuse(&format!("expected an index made with {config:?}, got {made:?}"));
        }
        if *keys != index.keys().len() as u64
            || hash[..4] != digest(&header(made, *keys), index.keys())
        {
            return refuse("it is damaged; make it again");
        }
        Ok(index)
    }

    fn words(&self) -> &[u64] {
        bytemuck::cast_slice(&self.0)
    }

    fn keys(&self) -> &[u64] {
        &self.words()[HEADER_WORDS..]
    }

    /// Whether earlier data have a key.
    pub(super) fn contains(&self, key: u64) -> bool {
        self.keys().binary_search(&key).is_ok()
    }

    /// The keys of one of `partitions` equal parts of all numbers.
    pub(super) fn partition(&self, number: usize, partitions: usize) -> &[u64] {
        let keys = self.keys();
        let shift = u64::BITS - partitions.ilog2();
        let before = |number: usize| keys.partition_point(|key| key >> shift < number as u64);
        &keys[before(number)..before(number + 1)]
    }
}

fn header(config: MinHashConfig, keys: u64) -> [u64; 6] {
    let MinHashConfig { words, bands, rows, seed } = config;
    [MAGIC, words as u64, bands as u64, rows as u64, seed, keys]
}

fn digest(header: &[u64; 6], keys: &[u64]) -> [u64; 4] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytemuck::cast_slice(keys));
    finish(hasher, header)
}

fn finish(mut hasher: blake3::Hasher, header: &[u64; 6]) -> [u64; 4] {
    hasher.update(bytemuck::cast_slice(header));
    bytemuck::cast(*hasher.finalize().as_bytes())
}

/// An index that is being written.
pub(super) struct IndexWriter {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    config: MinHashConfig,
    keys: u64,
    hasher: blake3::Hasher,
}

impl IndexWriter {
    /// Begins the index `path`.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub(super) fn create(path: &Path, config: MinHashConfig) -> Result<Self, DataError> {
        let temporary = path.with_added_extension("tmp");
        let failed = DataError::io(&temporary, "create");
        let mut file = BufWriter::new(File::create(&temporary).map_err(failed)?);
        let failed = DataError::io(&temporary, "write");
        file.write_all(&[0; HEADER_WORDS * 8]).map_err(failed)?;
        let (path, hasher) = (path.to_owned(), blake3::Hasher::new());
        Ok(Self { path, temporary, file, config, keys: 0, hasher })
    }

    /// Appends keys, which must be greater than all before.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub(super) fn push(&mut self, keys: &[u64]) -> Result<(), DataError> {
        let bytes = bytemuck::cast_slice(keys);
        self.hasher.update(bytes);
        self.keys += keys.len() as u64;
        self.file.write_all(bytes).map_err(DataError::io(&self.temporary, "write"))
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub(super) fn finish(self) -> Result<(), DataError> {
        let Self { path, temporary, mut file, config, keys, hasher } = self;
        let header = header(config, keys);
        let digest = finish(hasher, &header);
        let mut write = || {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(bytemuck::cast_slice(&header))?;
            file.write_all(bytemuck::cast_slice(&digest))?;
            file.flush()?;
            file.get_ref().sync_all()
        };
        write().map_err(DataError::io(&temporary, "write"))?;
        fs::rename(&temporary, &path).map_err(DataError::io(&path, "rename"))
    }
}
