//! Records that do not fit into memory, grouped by their first number.
//!
//! Duty: takes records in any order and gives them back partition by partition, each sorted; equal
//! keys are in one partition. What does not fit into the buffers goes to one temporary file.
//! Ownership: the file, which is gone when this is dropped. Limits: 32 KiB for each of 256
//! partitions, and a whole partition while it is read. Prohibition: no result depends on the order
//! in which records came.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::data::error::DataError;

const PARTITIONS_LOG2: u32 = 8;
const BUFFER_BYTES: usize = 32 << 10;

/// Records of `N` numbers. The first number should be a hash.
pub(super) struct Spill<const N: usize> {
    path: PathBuf,
    /// Made when the first buffer is full.
    file: Option<File>,
    bytes: u64,
    partitions: Vec<Partition<N>>,
}

struct Partition<const N: usize> {
    buffer: Vec<[u64; N]>,
    /// Where in the file its full buffers lie.
    full: Vec<u64>,
}

impl<const N: usize> Spill<N> {
    const BUFFER: usize = BUFFER_BYTES / size_of::<[u64; N]>();

    /// An empty one, whose file would be `path`.
    pub(super) fn new(path: &Path) -> Self {
        let partition = |_| Partition { buffer: Vec::new(), full: Vec::new() };
        let partitions = (0..1 << PARTITIONS_LOG2).map(partition).collect();
        Self { path: path.to_owned(), file: None, bytes: 0, partitions }
    }

    /// Takes a record.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub(super) fn push(&mut self, record: [u64; N]) -> Result<(), DataError> {
        let number = record[0] >> (u64::BITS - PARTITIONS_LOG2);
        let partition = &mut self.partitions[number as usize];
        if partition.buffer.len() == Self::BUFFER {
            let failed = || DataError::io(&self.path, "write");
            let file = match &mut self.file {
                Some(file) => file,
                None => {
                    let options = File::options()
                        .read(true)
                        .write(true)
                        .create(true)
                        .truncate(true)
                        .open(&self.path);
                    self.file.insert(options.map_err(DataError::io(&self.path, "create"))?)
                }
            };
            let bytes: &[u8] = bytemuck::cast_slice(&partition.buffer);
            file.write_all_at(bytes, self.bytes).map_err(failed())?;
            partition.full.push(self.bytes);
            self.bytes += bytes.len() as u64;
            partition.buffer.clear();
        }
        partition.buffer.push(record);
        Ok(())
    }

    /// Number of partitions.
    pub(super) fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// All records of a partition, sorted; in the order of partitions all records are.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub(super) fn sorted(&self, partition: usize) -> Result<Vec<[u64; N]>, DataError> {
        let Partition { buffer, full } = &self.partitions[partition];
        let mut records = vec![[0; N]; full.len() * Self::BUFFER];
        let blocks = records.chunks_exact_mut(Self::BUFFER);
        for (&at, block) in full.iter().zip(blocks) {
            let file = self.file.as_ref().expect("a full buffer was written");
            file.read_exact_at(bytemuck::cast_slice_mut(block), at)
                .map_err(DataError::io(&self.path, "read"))?;
        }
        records.extend_from_slice(buffer);
        records.sort_unstable();
        Ok(records)
    }
}

impl<const N: usize> Drop for Spill<N> {
    fn drop(&mut self) {
        if self.file.is_some() {
            // What is left is in the folder of unfinished files.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests;
