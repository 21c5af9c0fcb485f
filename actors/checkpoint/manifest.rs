//! `manifest.json`: what a checkpoint says of itself, and vouches for with hashes.
//!
//! It covers itself too: `manifest_blake3` is the hash of the file's own bytes with that value
//! replaced by 64 zeros, so a flipped bit in the cursor is found like one in a tensor.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use octet_kernels::dtype::DType;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoint::{CheckpointError, damaged};
use crate::outside::{Disk, DiskError};
use crate::snapshot::digest::combine;

/// Grows when a reader of the old format would misread the new one.
pub const FORMAT_VERSION: u32 = 1;

/// Its name in the checkpoint's folder.
pub const MANIFEST: &str = "manifest.json";

/// Holds the place of the manifest's own hash.
const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A file of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Inside the folder.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// Hash of the whole file, as `b3sum` prints it.
    pub blake3: String,
}

/// A tensor of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorEntry {
    /// Name of the logical tensor.
    pub name: String,
    /// [`DType::name`].
    pub dtype: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// The file that holds it.
    pub file: String,
    /// The tensor's hash, by the rule of the digest.
    pub blake3: String,
}

/// The manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Steps done.
    pub step: u64,
    /// Where the data goes on.
    pub cursor: Value,
    /// What decisions about bad updates depend on; absent before there were any.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub recovery: Value,
    /// Digest of the resolved configuration.
    pub config_digest: String,
    /// What a resume must reproduce to get the same bits: micro-batch, lanes, kernel choices.
    pub identity: BTreeMap<String, String>,
    /// What the numbers come from beside that: program, instruction set, libraries.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub provenance: BTreeMap<String, String>,
    /// Digest of the state: parameters, optimizer state, cursor.
    pub digest: String,
    /// The checkpoint from which the run came here; `None` at the beginning.
    pub parent: Option<String>,
    /// When it was saved, in milliseconds since 1970.
    pub saved_unix_ms: u64,
    /// All files but this one.
    pub files: Vec<FileEntry>,
    /// All tensors, in byte order of their names.
    pub tensors: Vec<TensorEntry>,
    /// True: the manifest is written when everything else is.
    pub complete: bool,
    /// Hash of this file, see above.
    pub manifest_blake3: String,
}

impl Manifest {
    /// The file's bytes; sets `manifest_blake3`.
    pub fn seal(&mut self) -> Vec<u8> {
        self.manifest_blake3 = ZEROS.to_string();
        let mut text = serde_json::to_string_pretty(self).expect("plain data becomes JSON");
        text.push('\n');
        self.manifest_blake3 = blake3::hash(text.as_bytes()).to_hex().to_string();
        let place = text.rfind(ZEROS).expect("the field is there");
        text.replace_range(place..place + ZEROS.len(), &self.manifest_blake3);
        text.into_bytes()
    }

    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] that names the file, [`CheckpointError::Disk`].
    pub fn read(disk: &dyn Disk, folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(MANIFEST);
        let missing = |e: DiskError| match e.is_missing() {
            true => damaged(&path, "is missing"),
            false => e.into(),
        };
        let bytes = disk.read(&path).map_err(missing)?;
        Self::parse(&bytes).map_err(|what| damaged(&path, what))
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if manifest.format_version != FORMAT_VERSION {
            let version = manifest.format_version;
            return Err(format!("format {version}; this program reads {FORMAT_VERSION}"));
        }
        let mut text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?.to_string();
        let hash = &manifest.manifest_blake3;
        let place = text.rfind(hash.as_str()).filter(|_| hash.len() == ZEROS.len());
        let place = place.ok_or("its own hash is not one")?;
        text.replace_range(place..place + ZEROS.len(), ZEROS);
        if blake3::hash(text.as_bytes()).to_hex().as_str() != hash.as_str() {
            return Err("does not match its own hash".into());
        }
        if !manifest.complete {
            return Err("is not marked complete".into());
        }
        manifest.check_digest()?;
        manifest.check_files()?;
        Ok(manifest)
    }

    /// Files are names inside the folder, each once, and every tensor lies in one of them and has a
    /// size that there can be: what comes from elsewhere leads nowhere else.
    fn check_files(&self) -> Result<(), String> {
        let mut names: Vec<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        let is_plain = |name: &&str| {
            let mut parts = Path::new(name).components();
            let plain = matches!(parts.next(), Some(Component::Normal(part)) if part == *name);
            plain && parts.next().is_none() && *name != MANIFEST
        };
        if let Some(name) = names.iter().find(|name| !is_plain(name)) {
            return Err(format!("{name:?} is not the name of a file beside it"));
        }
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("it names {} twice", pair[0]));
        }
        for tensor in &self.tensors {
            let TensorEntry { name, file, shape, .. } = tensor;
            if names.binary_search(&file.as_str()).is_err() {
                return Err(format!(
                    "tensor {name} lies in {file:?}, which is not one of its files"
                ));
            }
            let elements = shape.iter().try_fold(8usize, |all, n| all.checked_mul(*n));
            if elements.is_none() {
                return Err(format!("tensor {name} is larger than any memory: {shape:?}"));
            }
        }
        Ok(())
    }

    /// The digest follows from the tensors' hashes and the cursor.
    fn check_digest(&self) -> Result<(), String> {
        let hashes: Result<Vec<_>, _> =
            self.tensors.iter().map(|t| blake3::Hash::from_hex(&t.blake3)).collect();
        let hashes = hashes.map_err(|e| format!("a tensor's hash: {e}"))?;
        match combine(hashes.iter(), &self.cursor).to_hex().as_str() == self.digest {
            true => Ok(()),
            false => Err("its digest does not follow from its tensors and cursor".into()),
        }
    }

    /// Tensors of one file.
    pub fn tensors_of<'a>(&'a self, file: &str) -> impl Iterator<Item = &'a TensorEntry> {
        let file = file.to_string();
        self.tensors.iter().filter(move |t| t.file == file)
    }

    /// Bytes of all files but the manifest.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }
}

impl TensorEntry {
    /// The type, if this program knows it.
    pub fn dtype(&self) -> Option<DType> {
        DType::from_name(&self.dtype)
    }
}
