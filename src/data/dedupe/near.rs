//! Documents that are nearly the same.
//!
//! Duty: documents that share a key of a band belong together, and so do those that a chain of
//! such pairs connects; the first one of each cluster stays. Where indexes of earlier data are
//! given, what belongs together with any of these goes as a whole. Limits: 16 bytes on disk for
//! each key, 4 in memory for each document. Prohibition: no result depends on threads.

use std::path::Path;

use super::bits::Bits;
use super::clusters::Clusters;
use super::in_partitions;
use super::index::{Index, IndexWriter};
use super::spill::Spill;
use crate::data::error::DataError;

/// Sizes of clusters are counted by powers of two, up to this one.
const SIZES: usize = 32;

/// Finds near duplicates among the documents that it is told of.
pub(super) struct Near {
    keys: Spill<2>,
    documents: u32,
}

/// Which documents are near duplicates.
#[derive(Debug, Default, PartialEq)]
pub(super) struct NearFound {
    /// Those that go.
    pub(super) dropped: Bits,
    /// Clusters of more than one document, by size: number i counts 2^i to 2^(i+1) - 1.
    pub(super) sizes: Vec<u64>,
    /// How many of those that go belong to earlier data.
    pub(super) in_indexes: u64,
}

impl Near {
    /// Nothing yet; `path` is for what does not fit into memory.
    pub(super) fn new(path: &Path) -> Self {
        Self { keys: Spill::new(path), documents: 0 }
    }

    /// Takes the keys of the next document.
    ///
    /// # Errors
    /// [`DataError::Io`]; [`DataError::Config`] if there are too many documents.
    pub(super) fn push(&mut self, keys: &[u64]) -> Result<(), DataError> {
        let document = self.documents;
        self.documents = document.checked_add(1).ok_or_else(|| DataError::Config {
            key: "data.dedupe",
            problem: format!("expected at most {} documents", u32::MAX),
        })?;
        keys.iter().try_for_each(|&key| self.keys.push([key, document.into()]))
    }

    /// Finds the clusters.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub(super) fn find(&self, indexes: &[Index], threads: usize) -> Result<NearFound, DataError> {
        let clusters = Clusters::new(self.documents);
        let known = in_partitions(self.keys.partitions(), threads, &|partition| {
            let records = self.keys.sorted(partition)?;
            let mut known = Vec::new();
            for same in records.chunk_by(|one, other| one[0] == other[0]) {
                let first = same[0][1] as u32;
                same[1..].iter().for_each(|record| clusters.join(first, record[1] as u32));
                if indexes.iter().any(|index| index.contains(same[0][0])) {
                    known.push(first);
                }
            }
            Ok(known)
        })?;
        let mut in_indexes = Bits::default();
        for document in known.into_iter().flatten() {
            in_indexes.insert(clusters.first(document).into());
        }
        let mut found = NearFound { sizes: vec![0; SIZES], ..NearFound::default() };
        let mut sizes = vec![0u32; self.documents as usize];
        for document in 0..self.documents {
            let first = clusters.first(document);
            sizes[first as usize] += 1;
            let earlier = in_indexes.contains(first.into());
            if earlier || first != document {
                found.dropped.insert(document.into());
                found.in_indexes += u64::from(earlier);
            }
        }
        for size in sizes.into_iter().filter(|&size| size > 1) {
            found.sizes[size.ilog2() as usize] += 1;
        }
        Ok(found)
    }

    /// Writes an index of these documents and of those in `indexes`.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub(super) fn save(&self, writer: IndexWriter, indexes: &[Index]) -> Result<(), DataError> {
        let mut writer = writer;
        for partition in 0..self.keys.partitions() {
            let records = self.keys.sorted(partition)?;
            let mut keys: Vec<u64> = records.iter().map(|record| record[0]).collect();
            for index in indexes {
                keys.extend_from_slice(index.partition(partition, self.keys.partitions()));
            }
            keys.sort_unstable();
            keys.dedup();
            writer.push(&keys)?;
        }
        writer.finish()
    }
}

#[cfg(test)]
mod tests;
