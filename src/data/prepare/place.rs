//! The folder that prepared data are made in.
//!
//! Duty: one process at a time; what is half made is never seen under its name, and gone when
//! its maker ends, however that is: a killed one's is removed by the next, but for the stages that
//! the next can go on with ([`super::chain`]). Ownership: the lock on the cache folder and the
//! folder of unfinished files inside. Prohibition: knows no data.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use super::record::Record;
use super::{Stage, Watch, chain};
use crate::data::error::DataError;
use crate::data::shard::sync_folder_of;

/// The folder of unfinished files.
const MAKING: &str = "unfinished.tmp";
/// Between two looks at a lock that somebody holds.
const WAIT: Duration = Duration::from_millis(100);

/// A claimed cache folder.
pub(super) struct Place {
    folder: PathBuf,
    making: PathBuf,
    /// Folders that did not exist before, innermost first.
    made: Vec<PathBuf>,
    /// The key whose stages stay for the next preparation; nothing stays after the end.
    keep: Option<String>,
    /// Held open for the lock.
    _lock: File,
    finished: bool,
}

impl Place {
    /// Makes the folder and waits until nobody else writes to it. Stages of a preparation with
    /// this key that lie there stay.
    ///
    /// # Errors
    /// [`DataError::Io`], [`DataError::Interrupted`].
    pub(super) fn claim(
        folder: &Path,
        key: &str,
        watch: &mut Watch<'_>,
    ) -> Result<Self, DataError> {
        let mut made = Vec::new();
        let lock = loop {
            let missing = folder
                .ancestors()
                .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
            made.extend(missing.map(Path::to_owned));
            fs::create_dir_all(folder).map_err(DataError::io(folder, "create"))?;
            let lock = File::open(folder).map_err(DataError::io(folder, "open"))?;
            match lock.try_lock() {
                // Whoever held it may have removed the folder.
                Ok(()) if is_there(&lock, folder) => break lock,
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    watch.tell(Stage::Wait, 0, 0)?;
                    sleep(WAIT);
                }
                Err(TryLockError::Error(error)) => {
                    return Err(DataError::io(folder, "lock")(error));
                }
            }
        };
        let making = folder.join(MAKING);
        let keep = Some(key.to_owned());
        let folder = folder.to_owned();
        let place = Self { folder, making, made, keep, _lock: lock, finished: false };
        place.clear().map_err(DataError::io(&place.making, "remove"))?;
        fs::create_dir_all(&place.making).map_err(DataError::io(&place.making, "create"))?;
        Ok(place)
    }

    /// Removes what was left unfinished, but for stages that can be gone on with.
    fn clear(&self) -> std::io::Result<()> {
        if !self.making.exists() {
            return Ok(());
        }
        if !self.keep.as_ref().is_some_and(|key| chain::belongs(&self.making, key)) {
            return fs::remove_dir_all(&self.making);
        }
        for entry in fs::read_dir(&self.making)? {
            let entry = entry?;
            if !chain::is_ours(Path::new(&entry.file_name())) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// The cache folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of unfinished files.
    pub(super) fn making(&self) -> &Path {
        &self.making
    }

    /// The path of an unfinished file.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.making.join(name)
    }

    /// Gives all files their places, the record last.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub(super) fn finish(&mut self, record: &Record) -> Result<(), DataError> {
        record.save(&self.making)?;
        let entries = fs::read_dir(&self.making).map_err(DataError::io(&self.making, "read"))?;
        let entries = entries.collect::<Result<Vec<_>, _>>();
        let entries = entries.map_err(DataError::io(&self.making, "read"))?;
        let last = record.path(&self.folder);
        // A record that does not fit the files any more must not meet them.
        match fs::remove_file(&last) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(DataError::io(&last, "remove")(error));
            }
            _ => {}
        }
        for entry in entries {
            let to = self.folder.join(entry.file_name());
            if to != last {
                fs::rename(entry.path(), &to).map_err(DataError::io(&to, "rename"))?;
            }
        }
        sync_folder_of(&last)?;
        let from = record.path(&self.making);
        fs::rename(from, &last).map_err(DataError::io(&last, "rename"))?;
        sync_folder_of(&last)?;
        (self.finished, self.keep) = (true, None);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next preparation.
        let _ = self.clear();
        if !self.finished {
            // Only folders that this call made, and only while they are empty.
            self.made.iter().take_while(|folder| fs::remove_dir(folder).is_ok()).count();
        }
    }
}

/// Whether an open folder is the one of this name.
fn is_there(open: &File, folder: &Path) -> bool {
    match (open.metadata(), fs::metadata(folder)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}
