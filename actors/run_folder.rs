//! The folder of one run (DESIGN section 5): its lock, its configuration, its log, its summary.
//!
//! Owns the layout and the exclusive lock. Every small file is replaced whole or not at all. It
//! never deletes a run: `Start::Fresh` moves an old one aside.

pub mod log;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::outside::{Disk, DiskError, LocalDisk};

/// How long a start waits for the lock of an engine that is just dying.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// What to do with a run that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Move it aside to `NAME.old-1`, `NAME.old-2`, ... and begin an empty one.
    Fresh,
    /// Go on with it. Without one, begin an empty one.
    Resume,
}

/// Why a run folder cannot be used.
#[derive(Debug, Error)]
pub enum RunFolderError {
    /// Another engine holds the lock.
    #[error(
        "{} is in use by {owner} (waited {:.0} s): stop it, or choose another folder with --run",
        path.display(), waited.as_secs_f64()
    )]
    Busy {
        /// The run folder.
        path: PathBuf,
        /// `process 1234`, or `another process`.
        owner: String,
        /// How long we waited.
        waited: Duration,
    },
    /// The folder holds somebody's files, and no run.
    #[error(
        "{} holds files but no config.toml, so it is no run folder: choose an empty or new one \
         with --run",
        path.display()
    )]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// A file of the run is not what it should be.
    #[error("{}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// An open run folder. The lock is held until this is dropped or the process ends.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    lock: File,
    moved_to: Option<PathBuf>,
}

impl RunFolder {
    /// Takes the folder for this process; waits up to `patience` for another one to let go.
    ///
    /// Nothing is written before it is certain that the folder is new, empty or a run.
    ///
    /// # Errors
    /// [`RunFolderError`].
    pub fn open(path: &Path, start: Start, patience: Duration) -> Result<Self, RunFolderError> {
        let path = std::path::absolute(path).map_err(io_error("find", path))?;
        // Behind a link lies a disk that somebody has chosen for the run, old ones included.
        let path = behind_links(path);
        let begun = Instant::now();
        let mut moved_to = None;
        loop {
            if is_foreign(&path)? {
                return Err(RunFolderError::NotARun { path });
            }
            // At any moment before we hold its lock, another start may move the folder aside.
            match fs::create_dir_all(&path) {
                Err(why) if why.kind() == io::ErrorKind::AlreadyExists && !path.is_symlink() => {
                    continue;
                }
                made => made.map_err(io_error("create", &path))?,
            }
            let lock = match take_lock(&path, begun, patience) {
                Err(RunFolderError::Disk(error)) if error.is_missing() => continue,
                taken => taken?,
            };
            if !is_file_at(&lock, &path.join("lock")) {
                continue;
            }
            if start == Start::Fresh && holds_run(&path)? {
                moved_to = Some(move_aside(&path)?);
                continue;
            }
            for folder in ["checkpoints", "events", "trace", "samples"] {
                let folder = path.join(folder);
                fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
            }
            remove_if_there(&path.join("web.json"))?;
            return Ok(Self { path, lock, moved_to });
        }
    }

    /// Names the process that whoever wants the folder should stop instead of this one: its parent,
    /// which would start another one.
    ///
    /// # Errors
    /// [`RunFolderError::Disk`].
    pub fn name_parent(&mut self, parent: u32) -> Result<(), RunFolderError> {
        writeln!(self.lock, "{parent}").map_err(io_error("write", &self.path.join("lock")))
    }

    /// The folder itself, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the run that was here went, if `Start::Fresh` moved one aside.
    #[must_use]
    pub fn moved_to(&self) -> Option<&Path> {
        self.moved_to.as_deref()
    }

    /// Folder of checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Folder of TensorBoard event files.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.path.join("events")
    }

    /// Folder of Chrome traces.
    #[must_use]
    pub fn trace(&self) -> PathBuf {
        self.path.join("trace")
    }

    /// Folder of samples.
    #[must_use]
    pub fn samples(&self) -> PathBuf {
        self.path.join("samples")
    }

    /// The log of steps and evaluations.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("log.jsonl")
    }

    /// The summary of the run.
    #[must_use]
    pub fn summary(&self) -> PathBuf {
        self.path.join("summary.json")
    }

    /// The address of the web server.
    #[must_use]
    pub fn web(&self) -> PathBuf {
        self.path.join("web.json")
    }

    /// The last messages of each actor, after a broken assertion.
    #[must_use]
    pub fn dump(&self) -> PathBuf {
        self.path.join("dump.json")
    }

    /// Stores the resolved configuration.
    ///
    /// # Errors
    /// [`RunFolderError::Disk`].
    pub fn write_config(&self, text: &str) -> Result<(), RunFolderError> {
        let path = self.path.join("config.toml");
        Ok(replace(&LocalDisk, &path, text.as_bytes())?)
    }

    /// The stored configuration; `None` in a new folder.
    ///
    /// # Errors
    /// [`RunFolderError::Disk`].
    pub fn read_config(&self) -> Result<Option<String>, RunFolderError> {
        let path = self.path.join("config.toml");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(io_error("read", &path)(why)),
        }
    }
}

/// Looks whether a run folder can be made and written at a path, and makes nothing.
///
/// # Errors
/// A sentence: what is in the way.
pub fn check_place(path: &Path) -> Result<(), String> {
    let path = std::path::absolute(path).map(behind_links).map_err(|error| error.to_string())?;
    // A file with a slash behind it is still a file.
    let path: PathBuf = path.components().collect();
    let there = path.ancestors().find(|path| fs::symlink_metadata(path).is_ok());
    let there = there.unwrap_or(Path::new("/"));
    let shown = there.display();
    if !there.is_dir() {
        return Err(format!("expected a folder, but {shown} is a file"));
    }
    let name = std::ffi::CString::new(there.as_os_str().as_encoded_bytes());
    let name = name.map_err(|_| "expected a path without a zero byte".to_owned())?;
    // SAFETY: the name is a C string; no other memory is touched.
    match unsafe { libc::access(name.as_ptr(), libc::W_OK | libc::X_OK) } {
        0 => Ok(()),
        _ => {
            let why = io::Error::last_os_error();
            Err(format!("expected a folder that can be written to, but {shown} is not: {why}"))
        }
    }
}

/// Replaces a small file by `value` as JSON: readers see the old file or the new one, whole.
///
/// # Errors
/// [`DiskError`]; the old file is then still there.
pub fn replace_json(disk: &dyn Disk, path: &Path, value: &impl Serialize) -> Result<(), DiskError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|e| {
        let why = io::Error::other(e);
        DiskError { operation: "write", path: path.to_owned(), why }
    })?;
    text.push(b'\n');
    replace(disk, path, &text)
}

/// Reads a JSON file of a run.
///
/// # Errors
/// [`RunFolderError::Disk`], or [`RunFolderError::Unreadable`] naming the line.
pub fn read_json<T: DeserializeOwned>(disk: &dyn Disk, path: &Path) -> Result<T, RunFolderError> {
    serde_json::from_slice(&disk.read(path)?)
        .map_err(|e| RunFolderError::Unreadable { path: path.to_owned(), why: e.to_string() })
}

/// Replaces a file by `bytes`: temporary file, sync, rename, sync of the folder.
///
/// # Errors
/// [`DiskError`]; the old file is then still there.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let temporary = temporary_beside(path);
    let mut file = disk.create(&temporary)?;
    file.write_all(bytes)?;
    file.sync()?;
    disk.rename(&temporary, path)?;
    sync_folder_of(disk, path)
}

fn temporary_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

fn sync_folder_of(disk: &dyn Disk, path: &Path) -> Result<(), DiskError> {
    path.parent().map_or(Ok(()), |folder| disk.sync_folder(folder))
}

fn io_error<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> RunFolderError + use<'a> {
    move |why| DiskError { operation, path: path.to_owned(), why }.into()
}

/// The names in a folder, in one look; none without a folder.
fn names_in(path: &Path) -> Result<Vec<OsString>, RunFolderError> {
    let entries = match fs::read_dir(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.map_err(io_error("read", path))?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>();
    names.map_err(io_error("read", path))
}

/// It holds files, and not even the lock of a start that ended early, which is made first.
fn is_foreign(path: &Path) -> Result<bool, RunFolderError> {
    let names = names_in(path)?;
    Ok(!names.is_empty() && !names.iter().any(|name| name == "lock" || name == "config.toml"))
}

fn holds_run(path: &Path) -> Result<bool, RunFolderError> {
    Ok(path.join("config.toml").exists()
        || path.join("log.jsonl").exists()
        || !names_in(&path.join("checkpoints"))?.is_empty())
}

/// Opens and locks `lock`, and writes our process number into it.
fn take_lock(folder: &Path, begun: Instant, patience: Duration) -> Result<File, RunFolderError> {
    let path = folder.join("lock");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(io_error("open", &path))?;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(source)) => return Err(io_error("lock", &path)(source)),
            Err(TryLockError::WouldBlock) if begun.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(50).min(patience));
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _only_for_the_message = file.read_to_string(&mut text);
                // The parent of an engine stands behind it.
                let owner = match text.lines().last().map(str::parse::<u32>) {
                    Some(Ok(pid)) => format!("process {pid}"),
                    _ => "another process".to_owned(),
                };
                let path = folder.to_owned();
                return Err(RunFolderError::Busy { path, owner, waited: begun.elapsed() });
            }
        }
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(io_error("write", &path))?;
    Ok(file)
}

fn is_file_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => ours.dev() == there.dev() && ours.ino() == there.ino(),
        _ => false,
    }
}

/// Where a path leads if it is a symbolic link to a place that is there, or that can be made in a
/// folder that is. Behind others lies nothing: a disk that is not mounted, say.
fn behind_links(path: PathBuf) -> PathBuf {
    const LINKS_MAX: usize = 40;
    // A slash behind a link hides that it is one.
    let mut path: PathBuf = path.components().collect();
    for _ in 0..LINKS_MAX {
        let Ok(target) = fs::read_link(&path) else { break };
        let target = path.parent().unwrap_or(Path::new("/")).join(target);
        if !target.parent().is_some_and(Path::is_dir) {
            break;
        }
        path = target;
    }
    path
}

fn move_aside(path: &Path) -> Result<PathBuf, RunFolderError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let aside = (1u32..)
        .map(|n| path.with_file_name(format!("{name}.old-{n}")))
        .find(|candidate| fs::symlink_metadata(candidate).is_err())
        .expect("a free number exists");
    fs::rename(path, &aside).map_err(io_error("move aside", path))?;
    sync_folder_of(&LocalDisk, path)?;
    Ok(aside)
}

fn remove_if_there(path: &Path) -> Result<(), RunFolderError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", path)(source))
        }
        _ => Ok(()),
    }
}
