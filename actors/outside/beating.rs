//! A disk that shows life while bytes go through it.
//!
//! Owns nothing but a count. Whoever works on a large state through it beats at every operation and
//! at every [`PIECE_BYTES`], so that the watchdog's deadline is one for a piece, however large the
//! state and however often it is read.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::outside::{Disk, DiskError, DiskFile, DiskReader, PIECE_BYTES};

type Beat = Arc<dyn Fn() + Send + Sync>;

/// The disk.
pub struct BeatingDisk {
    disk: Arc<dyn Disk>,
    life: Life,
}

#[derive(Clone)]
struct Life {
    beat: Beat,
    bytes: Arc<AtomicU64>,
}

impl Life {
    /// So many bytes have gone through.
    fn pass(&self, bytes: usize) {
        let before = self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if before / PIECE_BYTES != (before + bytes as u64) / PIECE_BYTES {
            (self.beat)();
        }
    }

    /// An operation has ended, well or not.
    fn after<T>(&self, done: T) -> T {
        (self.beat)();
        done
    }
}

impl BeatingDisk {
    /// `disk`, with a `beat` for what is done there.
    pub fn new(disk: Arc<dyn Disk>, beat: impl Fn() + Send + Sync + 'static) -> Self {
        Self { disk, life: Life { beat: Arc::new(beat), bytes: Arc::default() } }
    }
}

struct BeatingFile(Box<dyn DiskFile>, Life);

impl DiskFile for BeatingFile {
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        self.0.write_all(bytes)?;
        self.1.pass(bytes.len());
        Ok(())
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        self.1.after(self.0.sync())
    }
}

struct BeatingReader(Box<dyn DiskReader>, Life);

impl DiskReader for BeatingReader {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, DiskError> {
        let count = self.0.read(buffer)?;
        self.1.pass(count);
        Ok(count)
    }
}

impl Disk for BeatingDisk {
    fn create(&self, path: &Path) -> Result<Box<dyn DiskFile>, DiskError> {
        let file = self.life.after(self.disk.create(path))?;
        Ok(Box::new(BeatingFile(file, self.life.clone())))
    }

    fn append(&self, path: &Path) -> Result<Box<dyn DiskFile>, DiskError> {
        let file = self.life.after(self.disk.append(path))?;
        Ok(Box::new(BeatingFile(file, self.life.clone())))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn DiskReader>, DiskError> {
        let reader = self.life.after(self.disk.open(path))?;
        Ok(Box::new(BeatingReader(reader, self.life.clone())))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, DiskError> {
        self.life.after(self.disk.read(path))
    }

    fn size(&self, path: &Path) -> Result<u64, DiskError> {
        self.life.after(self.disk.size(path))
    }

    fn exists(&self, path: &Path) -> bool {
        self.life.after(self.disk.exists(path))
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, DiskError> {
        self.life.after(self.disk.list(folder))
    }

    fn create_folders(&self, folder: &Path) -> Result<(), DiskError> {
        self.life.after(self.disk.create_folders(folder))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.life.after(self.disk.rename(from, to))
    }

    fn sync_folder(&self, folder: &Path) -> Result<(), DiskError> {
        self.life.after(self.disk.sync_folder(folder))
    }

    fn remove_dir_all(&self, folder: &Path) -> Result<(), DiskError> {
        self.life.after(self.disk.remove_dir_all(folder))
    }

    fn free_space(&self, path: &Path) -> Result<u64, DiskError> {
        self.life.after(self.disk.free_space(path))
    }
}
