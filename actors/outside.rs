//! The outside world as traits: time and files. Actors see it only through these.
//!
//! Owns nothing but open files. Whatever an actor does to time or to files goes through [`Clock`]
//! and [`Disk`], so that a test or the simulation puts [`faulty::FaultyDisk`] and [`ManualClock`]
//! in their place. Memory-mapped data shards are the one exception.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use thiserror::Error;

pub mod beating;
pub mod faulty;
#[cfg(test)]
mod tests;

/// A file that is written is never further ahead of its disk than two pieces of so many bytes, so
/// that no write and no sync takes longer than they do.
pub const PIECE_BYTES: u64 = 64 << 20;

/// Time.
pub trait Clock: Send + Sync {
    /// Time since some fixed start; never goes back.
    fn monotonic(&self) -> Duration;

    /// Milliseconds since 1970, as the machine believes.
    fn unix_ms(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A clock that stands still until it is told to go on. Starts at 0.
#[derive(Debug, Default)]
pub struct ManualClock {
    nanoseconds: AtomicU64,
}

impl ManualClock {
    /// At 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on by `by`.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).expect("a simulated run is shorter than 500 years");
        self.nanoseconds.fetch_add(by, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }

    fn unix_ms(&self) -> u64 {
        self.nanoseconds.load(Ordering::Relaxed) / 1_000_000
    }
}

/// A file operation failed.
#[derive(Debug, Error)]
#[error("cannot {operation} {}: {why}", path.display())]
pub struct DiskError {
    /// What was tried, as a verb.
    pub operation: &'static str,
    /// On which file or folder.
    pub path: PathBuf,
    /// What the operating system said.
    pub why: io::Error,
}

impl DiskError {
    /// The disk or the quota is full.
    pub fn is_full(&self) -> bool {
        matches!(self.why.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// There is no such file or folder.
    pub fn is_missing(&self) -> bool {
        self.why.kind() == io::ErrorKind::NotFound
    }
}

/// A file that is being written.
pub trait DiskFile: Send {
    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// [`DiskError`]; how much was stored is then unknown.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), DiskError>;

    /// Returns when everything written so far survives a power failure (the file's name does so
    /// only after [`Disk::sync_folder`]).
    ///
    /// # Errors
    /// [`DiskError`].
    fn sync(&mut self) -> Result<(), DiskError>;
}

/// A file that is being read, from its start.
pub trait DiskReader: Send {
    /// Reads some bytes; 0 at the end.
    ///
    /// # Errors
    /// [`DiskError`].
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, DiskError>;
}

/// Files and folders.
pub trait Disk: Send + Sync {
    /// Creates or empties a file.
    ///
    /// # Errors
    /// [`DiskError`], as everywhere here.
    fn create(&self, path: &Path) -> Result<Box<dyn DiskFile>, DiskError>;

    /// Opens a file to write at its end; creates it.
    fn append(&self, path: &Path) -> Result<Box<dyn DiskFile>, DiskError>;

    /// Opens a file to read it in pieces.
    fn open(&self, path: &Path) -> Result<Box<dyn DiskReader>, DiskError>;

    /// The whole of a small file.
    fn read(&self, path: &Path) -> Result<Vec<u8>, DiskError>;

    /// Bytes of a file.
    fn size(&self, path: &Path) -> Result<u64, DiskError>;

    /// Whether a file or folder is there.
    fn exists(&self, path: &Path) -> bool;

    /// Names inside a folder, sorted.
    fn list(&self, folder: &Path) -> Result<Vec<String>, DiskError>;

    /// Creates a folder and those above it; it may be there already.
    fn create_folders(&self, folder: &Path) -> Result<(), DiskError>;

    /// Renames a file or folder inside one file system, atomically. A file replaces a file.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError>;

    /// Returns when the names inside the folder survive a power failure.
    fn sync_folder(&self, folder: &Path) -> Result<(), DiskError>;

    /// Removes a folder and all it holds.
    fn remove_dir_all(&self, folder: &Path) -> Result<(), DiskError>;

    /// Bytes that may still be written beside or below `path`, which need not exist yet.
    fn free_space(&self, path: &Path) -> Result<u64, DiskError>;
}

/// The machine's file systems.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalDisk;

/// Attaches operation and path to an error of the operating system.
fn at<'a>(operation: &'static str, path: &'a Path) -> impl Fn(io::Error) -> DiskError + 'a {
    move |why| DiskError { operation, path: path.to_path_buf(), why }
}

struct LocalFile {
    file: File,
    path: PathBuf,
    /// Bytes written since it was created; nothing is known of one that was there.
    written: Option<u64>,
}

impl LocalFile {
    fn new(file: File, path: &Path) -> Self {
        Self { file, path: path.to_path_buf(), written: None }
    }

    /// Lets the disk begin with the piece that ends here, and waits for the one before.
    fn push(&self, end: u64) -> io::Result<()> {
        const WAIT: u32 = libc::SYNC_FILE_RANGE_WAIT_BEFORE
            | libc::SYNC_FILE_RANGE_WRITE
            | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        let last = end.saturating_sub(PIECE_BYTES);
        let before = last.saturating_sub(PIECE_BYTES);
        for (from, to, how) in [(last, end, libc::SYNC_FILE_RANGE_WRITE), (before, last, WAIT)] {
            let (from, bytes) = (from as libc::off64_t, (to - from) as libc::off64_t);
            // To the call, 0 bytes mean all the rest.
            if bytes == 0 {
                continue;
            }
            // SAFETY: the descriptor is open; the call touches no memory of ours.
            if unsafe { libc::sync_file_range(self.file.as_raw_fd(), from, bytes, how) } != 0 {
                let why = io::Error::last_os_error();
                let unknown = [libc::EINVAL, libc::ENOSYS, libc::ESPIPE];
                // Where there is no such call, the sync at the end does it all.
                let missing = why.raw_os_error().is_some_and(|code| unknown.contains(&code));
                return if missing { Ok(()) } else { Err(why) };
            }
        }
        Ok(())
    }
}

impl DiskFile for LocalFile {
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write_all(bytes).map_err(at("write", &self.path))?;
        let Some(before) = self.written else { return Ok(()) };
        let written = before + bytes.len() as u64;
        self.written = Some(written);
        if before / PIECE_BYTES != written / PIECE_BYTES {
            self.push(written / PIECE_BYTES * PIECE_BYTES).map_err(at("write", &self.path))?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        self.file.sync_all().map_err(at("sync", &self.path))?;
        // What is stored needs no cache: a checkpoint must not push the data shards out of memory,
        // and whoever reads it back to verify it wants the disk's bytes. Only advice, so no error.
        // SAFETY: the descriptor is open; the call touches no memory of ours.
        let _advice =
            unsafe { libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        Ok(())
    }
}

impl DiskReader for LocalFile {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, DiskError> {
        loop {
            match self.file.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return done.map_err(at("read", &self.path)),
            }
        }
    }
}

impl Disk for LocalDisk {
    fn create(&self, path: &Path) -> Result<Box<dyn DiskFile>, DiskError> {
        let file = File::create(path).map_err(at("create", path))?;
        Ok(Box::new(LocalFile { written: Some(0), ..LocalFile::new(file, path) }))
    }

    fn append(&self, path: &Path) -> Result<Box<dyn DiskFile>, DiskError> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).open(path).map_err(at("open", path))?;
        Ok(Box::new(LocalFile::new(file, path)))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn DiskReader>, DiskError> {
        let file = File::open(path).map_err(at("open", path))?;
        Ok(Box::new(LocalFile::new(file, path)))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, DiskError> {
        fs::read(path).map_err(at("read", path))
    }

    fn size(&self, path: &Path) -> Result<u64, DiskError> {
        Ok(fs::metadata(path).map_err(at("look at", path))?.len())
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, DiskError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(at("list", folder))? {
            let name = entry.map_err(at("list", folder))?.file_name();
            names.push(name.to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create_folders(&self, folder: &Path) -> Result<(), DiskError> {
        fs::create_dir_all(folder).map_err(at("create folder", folder))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        fs::rename(from, to).map_err(at("rename", from))
    }

    fn sync_folder(&self, folder: &Path) -> Result<(), DiskError> {
        let opened = File::open(folder).map_err(at("open", folder))?;
        opened.sync_all().map_err(at("sync", folder))
    }

    fn remove_dir_all(&self, folder: &Path) -> Result<(), DiskError> {
        fs::remove_dir_all(folder).map_err(at("remove", folder))
    }

    fn free_space(&self, path: &Path) -> Result<u64, DiskError> {
        let there = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("."));
        let name = CString::new(there.as_os_str().as_bytes())
            .map_err(|e| at("measure", there)(io::Error::other(e)))?;
        let mut figures = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: the name ends in a zero byte and `figures` has room for the answer.
        if unsafe { libc::statvfs(name.as_ptr(), figures.as_mut_ptr()) } != 0 {
            return Err(at("measure", there)(io::Error::last_os_error()));
        }
        // SAFETY: the call succeeded, so it filled the answer.
        let figures = unsafe { figures.assume_init() };
        Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
    }
}
