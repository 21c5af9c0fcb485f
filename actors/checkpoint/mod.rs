//! Checkpoints on disk: written as a transaction, verified, found again, thinned out.
//!
//! ```text
//! checkpoints/step-00001000/manifest.json                 written last, vouches for all the rest
//!                           model-00001.safetensors       parameters and saved states
//!                           optimizer-00001.safetensors   moments
//! ```
//!
//! A folder named `step-…` either holds a complete checkpoint or was damaged afterwards: everything
//! is written into `.step-….tmp`, synced, read back and compared, and only then renamed. Owns the
//! folder `checkpoints/`; nobody else writes there. It sees files only through [`Disk`], and the
//! state only as a snapshot slot.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::outside::{Disk, DiskError};
use crate::snapshot::{Slot, SnapshotError};
use crate::units::size;

pub mod inspect;
pub mod load;
pub mod manifest;
mod retention;
mod save;
pub mod tensor_file;
pub mod tensor_header;
#[cfg(test)]
pub(crate) mod tests;

pub use inspect::{Summary, inspect};
pub use load::{Contents, load, verify};
pub use manifest::{FileEntry, Manifest, TensorEntry};
pub use save::{About, Saved};

/// Free space that a checkpoint does not touch, in bytes: for its manifest, and for what the file
/// system needs beside the bytes of files.
pub const SPACE_RESERVE: u64 = 16 << 20;

/// Why a checkpoint was not written or not read.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// A file operation failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// There is not enough space; nothing was written.
    #[error(
        "{} takes {}, of which {} are a reserve for the file system, and {} are free",
        path.display(), size(*needed), size(SPACE_RESERVE), size(*free)
    )]
    Full {
        /// The checkpoint.
        path: PathBuf,
        /// Bytes of its files, and [`SPACE_RESERVE`].
        needed: u64,
        /// Bytes that are left.
        free: u64,
    },
    /// A file is not what was written.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The checkpoint is whole, but of other tensors than this run.
    #[error("{}: {what}", path.display())]
    Layout {
        /// The checkpoint.
        path: PathBuf,
        /// The first difference.
        what: String,
    },
    /// The snapshot slot refuses.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl CheckpointError {
    /// Whether an older checkpoint may be better: the files are to blame, not the run.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Disk(_))
    }

    /// Whether there is no space on the disk: somebody may make some.
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Disk(error) => {
                matches!(error.why.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}

/// How checkpoints are written and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// The newest so many stay; at least 1.
    pub keep_last: usize,
    /// Those whose step is a multiple of this stay for ever; 0: none.
    pub keep_every: u64,
    /// So many with the smallest held-out loss stay, as the log has it.
    pub keep_best: usize,
    /// A file is closed before it grows beyond this many bytes; one tensor always fits.
    pub file_bytes_max: u64,
    /// Files that are written, verified or read at a time.
    pub threads: usize,
}

impl Default for StoreSettings {
    fn default() -> Self {
        let (keep_last, keep_every, keep_best) = (3, 0, 0);
        Self { keep_last, keep_every, keep_best, file_bytes_max: 2 << 30, threads: 2 }
    }
}

/// The checkpoints of one run.
#[derive(Clone)]
pub struct Store {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    settings: StoreSettings,
    log: Option<PathBuf>,
}

/// A checkpoint that was found whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its folder.
    pub path: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
}

/// What a search for the newest good checkpoint found.
#[derive(Debug, Default)]
pub struct Search {
    /// The newest good one, if there is any.
    pub newest: Option<Found>,
    /// Newer ones that are damaged, to be reported: each names a file and what is wrong with it.
    pub damaged: Vec<CheckpointError>,
}

impl Store {
    /// The checkpoints in the folder `root`, which need not exist yet.
    pub fn new(disk: Arc<dyn Disk>, root: impl Into<PathBuf>, settings: StoreSettings) -> Self {
        Self { disk, root: root.into(), settings, log: None }
    }

    /// The log of the run: what stands in it is on the disk before a manifest is, so that no power
    /// failure leaves a checkpoint whose steps the log does not know.
    #[must_use]
    pub fn with_log(self, log: PathBuf) -> Self {
        Self { log: Some(log), ..self }
    }

    /// The same checkpoints through another disk, made of this one.
    #[must_use]
    pub fn through(self, disk: impl FnOnce(Arc<dyn Disk>) -> Arc<dyn Disk>) -> Self {
        Self { disk: disk(self.disk), ..self }
    }

    /// The folder that holds them.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a step's checkpoint.
    pub fn folder(&self, step: u64) -> PathBuf {
        self.root.join(folder_name(step))
    }

    /// Steps for which there is a folder, in order. Says nothing about what is in them.
    ///
    /// # Errors
    /// [`CheckpointError::Disk`].
    pub fn steps(&self) -> Result<Vec<u64>, CheckpointError> {
        if !self.disk.exists(&self.root) {
            return Ok(Vec::new());
        }
        let names = self.disk.list(&self.root)?;
        let mut steps: Vec<u64> = names.iter().filter_map(|name| folder_step(name)).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// The newest checkpoint whose every file has the right hash. Reads all of it.
    ///
    /// # Errors
    /// [`CheckpointError::Disk`] if the folder cannot be listed.
    pub fn find_newest_good(&self) -> Result<Search, CheckpointError> {
        self.find_good_at_most(u64::MAX)
    }

    /// As [`Self::find_newest_good`] among those of at most `step` steps.
    ///
    /// # Errors
    /// As [`Self::find_newest_good`].
    pub fn find_good_at_most(&self, step: u64) -> Result<Search, CheckpointError> {
        self.search(step, |folder| verify(&*self.disk, folder, self.settings.threads))
    }

    /// Fills the slot from the newest good checkpoint of at most `step` steps and commits it,
    /// reading every file once. The slot is the caller's alone.
    ///
    /// # Errors
    /// [`CheckpointError::Disk`] if the folder cannot be listed, [`CheckpointError::Layout`] if the
    /// newest one that is not damaged has other tensors, [`CheckpointError::Snapshot`].
    pub fn load_good_at_most(
        &self,
        step: u64,
        slot: &Slot,
        sequence: u64,
    ) -> Result<Search, CheckpointError> {
        let threads = self.settings.threads;
        self.search(step, |folder| {
            load(&*self.disk, folder, slot, sequence, Contents::All, threads)
        })
    }

    fn search(
        &self,
        at_most: u64,
        try_one: impl Fn(&Path) -> Result<Manifest, CheckpointError>,
    ) -> Result<Search, CheckpointError> {
        let mut search = Search::default();
        for step in self.steps()?.into_iter().rev().filter(|step| *step <= at_most) {
            let path = self.folder(step);
            match try_one(&path) {
                Ok(manifest) => {
                    search.newest = Some(Found { path, manifest });
                    break;
                }
                Err(e) if e.is_damage() => search.damaged.push(e),
                Err(e) => return Err(e),
            }
        }
        Ok(search)
    }
}

/// `step-00001000`.
fn folder_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// The step of a name that [`folder_name`] made.
fn folder_step(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (folder_name(step) == name).then_some(step)
}

/// A file that is not what it should be.
fn damaged(path: &Path, what: impl Into<String>) -> CheckpointError {
    CheckpointError::Damaged { path: path.to_path_buf(), what: what.into() }
}

/// Does `work` for 0..count on up to `threads` threads; the results in order. After a failure
/// nothing new is begun, and the failure of the lowest number is returned. With one thread, in
/// order.
fn in_parallel<T: Send>(
    threads: usize,
    count: usize,
    work: impl Fn(usize) -> Result<T, CheckpointError> + Sync,
) -> Result<Vec<T>, CheckpointError> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let run = || {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count || failed.load(Ordering::Relaxed) {
                return done;
            }
            let result = work(i);
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            done.push((i, result));
        }
    };
    let mut done = if threads.min(count) <= 1 {
        run()
    } else {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..threads.min(count)).map(|_| scope.spawn(run)).collect();
            threads.into_iter().flat_map(|t| t.join().expect("a writer panicked")).collect()
        })
    };
    done.sort_unstable_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}
