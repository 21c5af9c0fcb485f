//! Writing a checkpoint: temporary folder, write, sync, read back, manifest, rename, sync.
//!
//! Owns the temporary folder while it works and removes it when it fails. A crash at any point
//! leaves the earlier checkpoints as they were, and either no folder of this step or a complete
//! one.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::checkpoint::manifest::{FORMAT_VERSION, MANIFEST};
use crate::checkpoint::tensor_file::{TensorFileWriter, TensorSpec};
use crate::checkpoint::tensor_header::header;
use crate::checkpoint::{
    CheckpointError, FileEntry, Manifest, SPACE_RESERVE, Store, TensorEntry, folder_name,
    in_parallel, load,
};
use crate::snapshot::digest::{CHUNK_BYTES, TensorHasher, combine};
use crate::snapshot::{LogicalTensor, SlotView, SnapshotError, SnapshotLayout, TensorKind};

/// What a checkpoint says beside its state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// Digest of the resolved configuration.
    pub config_digest: String,
    /// Facts that a resume must reproduce.
    pub identity: BTreeMap<String, String>,
    /// Program and libraries.
    pub provenance: BTreeMap<String, String>,
    /// The checkpoint from which the run came here.
    pub parent: Option<String>,
    /// Now, in milliseconds since 1970.
    pub saved_unix_ms: u64,
}

/// A checkpoint that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Steps done.
    pub step: u64,
    /// Digest of the state.
    pub digest: String,
    /// Its folder.
    pub path: PathBuf,
    /// Bytes of its files but the manifest.
    pub bytes: u64,
}

/// A file that will be written: its name and its tensors by their place in the layout.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PlannedFile {
    name: String,
    tensors: Vec<usize>,
}

impl Store {
    /// Writes the slot's state as the checkpoint of its step, replacing one that is there, and
    /// seals the slot with the digest of what was written. Only when this returns is the checkpoint
    /// safe; after an error there is nothing of it, or all of it if only the last sync failed.
    ///
    /// # Errors
    /// [`CheckpointError::Full`] before anything is written; [`CheckpointError::Disk`] and
    /// [`CheckpointError::Damaged`] (what was read back is not what was written);
    /// [`CheckpointError::Snapshot`] if the slot changed meanwhile.
    pub fn save(&self, view: &SlotView<'_>, about: &About) -> Result<Saved, CheckpointError> {
        let step = view.head().step;
        let temporary = self.root.join(format!(".{}.tmp", folder_name(step)));
        let done = self.write(view, about, &temporary).and_then(|manifest| {
            self.publish(step, &temporary)?;
            Ok(manifest)
        });
        match done {
            Ok(manifest) => Ok(Saved {
                step,
                bytes: manifest.bytes(),
                digest: manifest.digest,
                path: self.folder(step),
            }),
            Err(e) => {
                // What failed is told; that its remains could not be removed either adds nothing,
                // and the next start removes them.
                let _removed = self.disk.remove_dir_all(&temporary);
                Err(e)
            }
        }
    }

    /// Fills the temporary folder and makes it durable.
    fn write(
        &self,
        view: &SlotView<'_>,
        about: &About,
        temporary: &Path,
    ) -> Result<Manifest, CheckpointError> {
        let plan = plan_files(view.layout(), self.settings.file_bytes_max);
        self.make_room(view, &plan, temporary)?;
        let threads = self.settings.threads;
        let written =
            in_parallel(threads, plan.len(), |i| self.write_file(view, &plan[i], temporary))?;
        in_parallel(threads, plan.len(), |i| {
            load::check_hash(&*self.disk, temporary, &written[i].0)
        })?;
        let mut manifest = manifest(view, about, &plan, written);
        self.check_slot(view, &manifest.digest)?;
        self.sync_log();
        let path = temporary.join(MANIFEST);
        let mut file = self.disk.create(&path)?;
        file.write_all(&manifest.seal())?;
        file.sync()?;
        Manifest::read(&*self.disk, temporary)?;
        self.disk.sync_folder(temporary)?;
        Ok(manifest)
    }

    /// Whoever writes the log has its own ways with a disk that refuses: that holds up no
    /// checkpoint.
    fn sync_log(&self) {
        if let Some(log) = self.log.as_ref().filter(|log| self.disk.exists(log)) {
            let _refused = self.disk.append(log).and_then(|mut log| log.sync());
        }
    }

    fn make_room(
        &self,
        view: &SlotView<'_>,
        plan: &[PlannedFile],
        temporary: &Path,
    ) -> Result<(), CheckpointError> {
        if self.disk.exists(temporary) {
            self.disk.remove_dir_all(temporary)?;
        }
        let specs = plan.iter().map(|file| file.specs(view.layout()));
        let bytes_of = |specs: Vec<TensorSpec>| {
            let data: u64 = specs.iter().map(TensorSpec::bytes).sum();
            header(&specs, &BTreeMap::new()).len() as u64 + data
        };
        let needed = specs.map(bytes_of).sum::<u64>() + SPACE_RESERVE;
        let free = self.disk.free_space(&self.root)?;
        if free < needed {
            let path = self.folder(view.head().step);
            return Err(CheckpointError::Full { path, needed, free });
        }
        Ok(self.disk.create_folders(temporary)?)
    }

    /// Writes one file from the slot; hashes the very bytes that it writes.
    fn write_file(
        &self,
        view: &SlotView<'_>,
        file: &PlannedFile,
        folder: &Path,
    ) -> Result<(FileEntry, Vec<blake3::Hash>), CheckpointError> {
        let path = folder.join(&file.name);
        let specs = file.specs(view.layout());
        let mut writer = TensorFileWriter::create(&*self.disk, &path, &specs, &BTreeMap::new())?;
        let mut hashes = Vec::with_capacity(specs.len());
        for (&i, spec) in file.tensors.iter().zip(&specs) {
            let mut hasher = TensorHasher::new(&spec.name, spec.dtype, &spec.shape);
            for chunk in view.bytes(&view.layout().tensors()[i]).chunks(CHUNK_BYTES) {
                hasher.chunk(chunk);
                writer.write(chunk)?;
            }
            hashes.push(hasher.finish());
        }
        let written = writer.finish()?;
        let blake3 = written.blake3.to_hex().to_string();
        Ok((FileEntry { name: file.name.clone(), bytes: written.bytes, blake3 }, hashes))
    }

    /// The slot is still what it was when the view was taken, as far as can be known.
    fn check_slot(&self, view: &SlotView<'_>, digest: &str) -> Result<(), CheckpointError> {
        let slot = view.slot();
        if slot.head()?.sequence != view.head().sequence {
            let what = "it was filled again while it was being saved".to_string();
            return Err(SnapshotError::Damaged { slot: slot.index(), what }.into());
        }
        Ok(slot.seal_with(digest)?)
    }

    /// Gives the temporary folder its name. A checkpoint of that step is put aside until then; if
    /// the machine stops between the two renames, [`Store::recover`] puts it back.
    fn publish(&self, step: u64, temporary: &Path) -> Result<(), CheckpointError> {
        let folder = self.folder(step);
        let aside = self.root.join(format!(".{}.old", folder_name(step)));
        let replaces = self.disk.exists(&folder);
        if replaces {
            if self.disk.exists(&aside) {
                // An earlier replacement failed at its very end.
                self.disk.sync_folder(&self.root)?;
                self.disk.remove_dir_all(&aside)?;
            }
            self.disk.rename(&folder, &aside)?;
        }
        if let Err(e) = self.disk.rename(temporary, &folder) {
            if replaces {
                self.disk.rename(&aside, &folder)?;
            }
            return Err(e.into());
        }
        self.sync_root()?;
        if replaces {
            self.disk.remove_dir_all(&aside)?;
        }
        Ok(())
    }

    /// Makes the names in the root durable, its own, and those of the folders above it, which the
    /// start of the run may just have made.
    fn sync_root(&self) -> Result<(), CheckpointError> {
        for folder in self.root.ancestors().filter(|p| !p.as_os_str().is_empty()) {
            match self.disk.sync_folder(folder) {
                // Somebody else's folder, which was there long before the run.
                Err(e) if e.why.kind() == ErrorKind::PermissionDenied => break,
                done => done?,
            }
        }
        Ok(())
    }
}

impl PlannedFile {
    fn specs(&self, layout: &SnapshotLayout) -> Vec<TensorSpec> {
        let spec = |&i: &usize| {
            let LogicalTensor { name, dtype, shape, .. } = &layout.tensors()[i];
            TensorSpec { name: name.clone(), dtype: *dtype, shape: shape.clone() }
        };
        self.tensors.iter().map(spec).collect()
    }
}

/// Which tensor goes to which file: model before optimizer, wide dtypes before narrow ones, then by
/// name; a new file where the limit would be passed.
fn plan_files(layout: &SnapshotLayout, bytes_max: u64) -> Vec<PlannedFile> {
    let mut plan = Vec::new();
    for (kind, prefix) in [(TensorKind::Model, "model"), (TensorKind::Optimizer, "optimizer")] {
        let tensors = layout.tensors();
        let mut members: Vec<usize> =
            (0..tensors.len()).filter(|&i| tensors[i].kind == kind).collect();
        members.sort_by_key(|&i| std::cmp::Reverse(tensors[i].dtype.bytes()));
        let mut files: Vec<Vec<usize>> = Vec::new();
        let mut size = 0;
        for i in members {
            let bytes = tensors[i].span.bytes as u64;
            if files.is_empty() || size + bytes > bytes_max {
                files.push(Vec::new());
                size = 0;
            }
            size += bytes;
            files.last_mut().expect("just pushed").push(i);
        }
        plan.extend(files.into_iter().enumerate().map(|(i, tensors)| PlannedFile {
            name: format!("{prefix}-{:05}.safetensors", i + 1),
            tensors,
        }));
    }
    plan
}

fn manifest(
    view: &SlotView<'_>,
    about: &About,
    plan: &[PlannedFile],
    written: Vec<(FileEntry, Vec<blake3::Hash>)>,
) -> Manifest {
    let layout = view.layout().tensors();
    let mut placed: Vec<(usize, blake3::Hash, &str)> = Vec::with_capacity(layout.len());
    for (file, (_, hashes)) in plan.iter().zip(&written) {
        let members = file.tensors.iter().zip(hashes);
        placed.extend(members.map(|(&i, &hash)| (i, hash, file.name.as_str())));
    }
    placed.sort_unstable_by_key(|(i, ..)| *i);
    let digest = combine(placed.iter().map(|(_, hash, _)| hash), &view.head().cursor);
    let entry = |(i, hash, file): &(usize, blake3::Hash, &str)| TensorEntry {
        name: layout[*i].name.clone(),
        dtype: layout[*i].dtype.name().to_string(),
        shape: layout[*i].shape.clone(),
        file: file.to_string(),
        blake3: hash.to_hex().to_string(),
    };
    Manifest {
        format_version: FORMAT_VERSION,
        step: view.head().step,
        cursor: view.head().cursor.clone(),
        recovery: view.head().facts.recovery.clone(),
        config_digest: about.config_digest.clone(),
        identity: about.identity.clone(),
        provenance: about.provenance.clone(),
        digest: digest.to_hex().to_string(),
        parent: about.parent.clone(),
        saved_unix_ms: about.saved_unix_ms,
        tensors: placed.iter().map(entry).collect(),
        files: written.into_iter().map(|(file, _)| file).collect(),
        complete: true,
        manifest_blake3: String::new(),
    }
}
