//! What a person wants to know of a checkpoint, without reading its tensors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::checkpoint::{CheckpointError, FileEntry, Manifest};
use crate::outside::Disk;

/// A checkpoint in short.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Its folder.
    pub path: PathBuf,
    /// Steps done.
    pub step: u64,
    /// Digest of the state.
    pub digest: String,
    /// Digest of the resolved configuration.
    pub config_digest: String,
    /// Where it came from.
    pub parent: Option<String>,
    /// When it was saved, in milliseconds since 1970.
    pub saved_unix_ms: u64,
    /// Facts that a resume must reproduce.
    pub identity: BTreeMap<String, String>,
    /// Where the data goes on.
    pub cursor: Value,
    /// Bytes of all files but the manifest.
    pub bytes: u64,
    /// The files.
    pub files: Vec<FileEntry>,
    /// Number of tensors by dtype.
    pub tensors: BTreeMap<String, usize>,
    /// Elements of parameters and states.
    pub model_elements: usize,
    /// Items that the optimizer stores, scales included.
    pub optimizer_elements: usize,
    /// Files that are missing or have another size. Hashes are not looked at.
    pub damaged: Vec<String>,
}

/// Reads the manifest and the sizes of the files.
///
/// # Errors
/// [`CheckpointError::Damaged`] if the manifest is missing or wrong, [`CheckpointError::Disk`].
pub fn inspect(disk: &dyn Disk, folder: &Path) -> Result<Summary, CheckpointError> {
    let manifest = Manifest::read(disk, folder)?;
    let bytes = manifest.bytes();
    let wrong = |file: &&FileEntry| disk.size(&folder.join(&file.name)).ok() != Some(file.bytes);
    let damaged = manifest.files.iter().filter(wrong).map(|f| f.name.clone()).collect();
    let mut tensors = BTreeMap::new();
    let (mut model_elements, mut optimizer_elements) = (0, 0);
    for tensor in &manifest.tensors {
        *tensors.entry(tensor.dtype.clone()).or_insert(0) += 1;
        let elements: usize = tensor.shape.iter().product();
        match tensor.file.starts_with("optimizer-") {
            true => optimizer_elements += elements,
            false => model_elements += elements,
        }
    }
    Ok(Summary {
        path: folder.to_path_buf(),
        step: manifest.step,
        digest: manifest.digest,
        config_digest: manifest.config_digest,
        parent: manifest.parent,
        saved_unix_ms: manifest.saved_unix_ms,
        identity: manifest.identity,
        cursor: manifest.cursor,
        bytes,
        files: manifest.files,
        tensors,
        model_elements,
        optimizer_elements,
        damaged,
    })
}
