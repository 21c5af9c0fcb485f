//! A folder that appears whole or not at all.
//!
//! Everything is written into a hidden folder beside it, synced, and renamed at the end. What a
//! killed process leaves is never taken for the folder, and is removed by the next attempt. Owns
//! the hidden folder; a failure removes it.

use std::path::{Path, PathBuf};

use octet_actors::outside::{Disk, DiskError};

use crate::failure::Failure;

/// A folder that is being written.
pub(super) struct Staging<'a> {
    disk: &'a dyn Disk,
    target: PathBuf,
    hidden: PathBuf,
    published: bool,
}

impl<'a> Staging<'a> {
    /// Begins a folder that does not exist, or is empty.
    ///
    /// # Errors
    /// Bad input: something is there; a failure of the world: the disk refuses.
    pub(super) fn begin(disk: &'a dyn Disk, target: &Path) -> Result<Self, Failure> {
        check_free(disk, target)?;
        let target = std::path::absolute(target).map_err(Failure::world)?;
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(Failure::user(format!("{} cannot be a new folder", target.display())));
        };
        disk.create_folders(parent).map_err(Failure::world)?;
        let prefix = format!(".{}.partial-", name.to_string_lossy());
        for name in disk.list(parent).map_err(Failure::world)? {
            let process = name.strip_prefix(&prefix);
            if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
                disk.remove_dir_all(&parent.join(name)).map_err(Failure::world)?;
            }
        }
        let hidden = parent.join(format!("{prefix}{}", std::process::id()));
        if disk.exists(&hidden) {
            disk.remove_dir_all(&hidden).map_err(Failure::world)?;
        }
        disk.create_folders(&hidden).map_err(Failure::world)?;
        Ok(Self { disk, target, hidden, published: false })
    }

    /// Where a file of the folder is written.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.hidden.join(name)
    }

    /// Writes a small file.
    ///
    /// # Errors
    /// A failure of the world.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let write = || -> Result<(), DiskError> {
            let mut file = self.disk.create(&self.path(name))?;
            file.write_all(bytes)?;
            file.sync()
        };
        write().map_err(Failure::world)
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// A failure of the world; bad input: something has taken the name meanwhile.
    pub(super) fn publish(mut self) -> Result<(), Failure> {
        check_free(self.disk, &self.target)?;
        let publish = || -> Result<(), DiskError> {
            self.disk.sync_folder(&self.hidden)?;
            self.disk.rename(&self.hidden, &self.target)?;
            self.disk.sync_folder(self.target.parent().unwrap_or(Path::new("/")))
        };
        publish().map_err(Failure::world)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        if !self.published {
            // What failed is told; the next attempt removes what this one cannot.
            let _left = self.disk.remove_dir_all(&self.hidden);
        }
    }
}

/// Refuses a place where something is.
///
/// # Errors
/// Bad input.
pub(super) fn check_free(disk: &dyn Disk, target: &Path) -> Result<(), Failure> {
    if disk.exists(target) && disk.list(target).map_or(true, |names| !names.is_empty()) {
        let shown = target.display();
        return Err(Failure::user(format!("{shown} is there already: name a new folder")));
    }
    Ok(())
}
