//! Reading a checkpoint back, and only believing it when every hash is right.

use std::path::Path;

use crate::checkpoint::tensor_file::TensorFileReader;
use crate::checkpoint::{CheckpointError, FileEntry, Manifest, TensorEntry, damaged, in_parallel};
use crate::outside::Disk;
use crate::snapshot::digest::{CHUNK_BYTES, TensorHasher};
use crate::snapshot::{LogicalTensor, Slot, SlotFacts, SnapshotLayout, TensorKind};

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// Everything: to go on training.
    All,
    /// Parameters and states; what an optimizer stores becomes 0. To evaluate or export.
    Model,
}

/// Reads every file of a checkpoint and compares hashes, on `threads` threads.
///
/// # Errors
/// [`CheckpointError::Damaged`] that names the file and, where possible, the tensor.
pub fn verify(disk: &dyn Disk, folder: &Path, threads: usize) -> Result<Manifest, CheckpointError> {
    let manifest = Manifest::read(disk, folder)?;
    in_parallel(threads, manifest.files.len(), |i| {
        let file = &manifest.files[i];
        let found = check_hash(disk, folder, file);
        if let Err(CheckpointError::Damaged { .. }) = found {
            // Read it again, slower, to say which tensor it is.
            check_size(disk, folder, file)?;
            check_tensors(disk, folder, &manifest, file, &|_, _, _| {})?;
        }
        found
    })?;
    Ok(manifest)
}

/// Compares size and hash of one file.
pub(super) fn check_hash(
    disk: &dyn Disk,
    folder: &Path,
    file: &FileEntry,
) -> Result<(), CheckpointError> {
    check_size(disk, folder, file)?;
    let path = folder.join(&file.name);
    let (mut reader, mut hasher) = (disk.open(&path)?, blake3::Hasher::new());
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        };
    }
    match hasher.finalize().to_hex().as_str() == file.blake3 {
        true => Ok(()),
        false => Err(damaged(&path, "does not match its hash")),
    }
}

fn check_size(disk: &dyn Disk, folder: &Path, file: &FileEntry) -> Result<(), CheckpointError> {
    let path = folder.join(&file.name);
    if !disk.exists(&path) {
        return Err(damaged(&path, "is missing"));
    }
    let bytes = disk.size(&path)?;
    if bytes != file.bytes {
        return Err(damaged(&path, format!("has {bytes} bytes instead of {}", file.bytes)));
    }
    Ok(())
}

/// Reads one file once, hands every piece (tensor, offset, bytes) to `deliver`, and compares the
/// hash of each tensor and of the whole.
fn check_tensors(
    disk: &dyn Disk,
    folder: &Path,
    manifest: &Manifest,
    file: &FileEntry,
    deliver: &dyn Fn(&TensorEntry, usize, &[u8]),
) -> Result<(), CheckpointError> {
    let path = folder.join(&file.name);
    let mut reader = TensorFileReader::open(disk, &path)?;
    let specs = reader.tensors().to_vec();
    let mut buffer = vec![0; CHUNK_BYTES];
    for spec in &specs {
        let unknown = || damaged(&path, format!("tensor {} is not the manifest's", spec.name));
        let entry = manifest.tensors.binary_search_by(|t| t.name.cmp(&spec.name));
        let entry = &manifest.tensors[entry.map_err(|_| unknown())?];
        let same = entry.file == file.name && entry.shape == spec.shape;
        if !same || entry.dtype() != Some(spec.dtype) {
            return Err(unknown());
        }
        let mut hasher = TensorHasher::new(&spec.name, spec.dtype, &spec.shape);
        let bytes = spec.bytes() as usize;
        for start in (0..bytes).step_by(CHUNK_BYTES) {
            let piece = &mut buffer[..CHUNK_BYTES.min(bytes - start)];
            reader.read(piece)?;
            hasher.chunk(piece);
            deliver(entry, start, piece);
        }
        if hasher.finish().to_hex().as_str() != entry.blake3 {
            let what = format!("tensor {} does not match its hash", spec.name);
            return Err(damaged(&path, what));
        }
    }
    if specs.len() != manifest.tensors_of(&file.name).count() {
        return Err(damaged(&path, "has fewer tensors than the manifest says"));
    }
    match reader.finish()?.to_hex().as_str() == file.blake3 {
        true => Ok(()),
        false => Err(damaged(&path, "does not match its hash, though its tensors do")),
    }
}

/// Fills a slot from a checkpoint, verifies every hash, and commits it with `sequence`; with
/// [`Contents::All`] it is sealed too. The slot is the caller's alone, and invalid after an error.
///
/// # Errors
/// [`CheckpointError::Layout`] if the run has other tensors; [`CheckpointError::Damaged`] that
/// names the file and tensor; [`CheckpointError::Disk`]; [`CheckpointError::Snapshot`].
pub fn load(
    disk: &dyn Disk,
    folder: &Path,
    slot: &Slot,
    sequence: u64,
    contents: Contents,
    threads: usize,
) -> Result<Manifest, CheckpointError> {
    slot.invalidate();
    let manifest = Manifest::read(disk, folder)?;
    let layout = slot.layout();
    compare(&manifest, layout, contents)
        .map_err(|what| CheckpointError::Layout { path: folder.to_path_buf(), what })?;
    let wanted = |file: &&FileEntry| {
        let mut tensors = manifest.tensors_of(&file.name);
        contents == Contents::All || tensors.any(|t| find(layout, &t.name).is_some_and(is_model))
    };
    let files: Vec<&FileEntry> = manifest.files.iter().filter(wanted).collect();
    in_parallel(threads, files.len(), |i| {
        check_size(disk, folder, files[i])?;
        check_tensors(disk, folder, &manifest, files[i], &|entry, start, bytes| {
            if let Some(tensor) = find(layout, &entry.name) {
                let target = slot.tensor(tensor).part(start, bytes.len());
                // SAFETY: the slot is the caller's alone and invalid; each tensor lies in one file,
                // and each file is read by one thread.
                unsafe { target.as_mut_slice::<u8>() }.copy_from_slice(bytes);
            }
        })
    })?;
    if contents == Contents::Model {
        slot.clear_planes();
    }
    let (recovery, identity) = (manifest.recovery.clone(), manifest.identity.clone());
    let facts = SlotFacts { recovery, identity };
    slot.commit_with(manifest.step, &manifest.cursor, &facts, sequence)?;
    if contents == Contents::All {
        slot.seal_with(&manifest.digest)?;
    }
    Ok(manifest)
}

fn is_model(tensor: &LogicalTensor) -> bool {
    tensor.kind == TensorKind::Model
}

fn find<'a>(layout: &'a SnapshotLayout, name: &str) -> Option<&'a LogicalTensor> {
    let tensors = layout.tensors();
    tensors.binary_search_by(|t| t.name.as_str().cmp(name)).ok().map(|i| &tensors[i])
}

/// The first tensor in which checkpoint and run differ, as a sentence.
fn compare(manifest: &Manifest, layout: &SnapshotLayout, contents: Contents) -> Result<(), String> {
    for tensor in layout.tensors() {
        if contents == Contents::Model && !is_model(tensor) {
            continue;
        }
        let name = &tensor.name;
        let found = manifest.tensors.binary_search_by(|t| t.name.cmp(name));
        let Ok(found) = found.map(|i| &manifest.tensors[i]) else {
            return Err(format!("it has no tensor {name}, which this run needs"));
        };
        if found.shape != tensor.shape || found.dtype() != Some(tensor.dtype) {
            let (dtype, shape) = (tensor.dtype, &tensor.shape);
            return Err(format!(
                "its tensor {name} is {} {:?}, and this run's is {dtype} {shape:?}",
                found.dtype, found.shape
            ));
        }
    }
    for entry in &manifest.tensors {
        if contents == Contents::All && find(layout, &entry.name).is_none() {
            return Err(format!("it has a tensor {}, which this run has not", entry.name));
        }
    }
    Ok(())
}
