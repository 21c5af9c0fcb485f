//! Texts that are the same byte for byte.
//!
//! Duty: of equal texts the first one stays. Limits: 24 bytes on disk for each text. Prohibition:
//! two texts are equal if 128 bits of their hashes are; nothing is compared.

use std::path::Path;

use super::bits::Bits;
use super::in_partitions;
use super::spill::Spill;
use crate::data::error::DataError;

/// What a text is known by.
pub(super) type Fingerprint = [u64; 2];

/// The fingerprint of a text.
pub(super) fn fingerprint(text: &str) -> Fingerprint {
    let hash = blake3::hash(text.as_bytes());
    let (words, _) = hash.as_bytes().as_chunks();
    [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]
}

/// Finds equal texts among those that it is told of.
pub(super) struct Repeated(Spill<3>);

impl Repeated {
    /// Nothing yet; `path` is for what does not fit into memory.
    pub(super) fn new(path: &Path) -> Self {
        Self(Spill::new(path))
    }

    /// Takes the text of this number.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub(super) fn push(&mut self, [high, low]: Fingerprint, number: u64) -> Result<(), DataError> {
        self.0.push([high, low, number])
    }

    /// The numbers of all texts that are like one of a lower number.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub(super) fn later(&self, threads: usize) -> Result<Bits, DataError> {
        let found = in_partitions(self.0.partitions(), threads, &|partition| {
            let records = self.0.sorted(partition)?;
            let later = records.windows(2).filter(|pair| pair[0][..2] == pair[1][..2]);
            Ok(later.map(|pair| pair[1][2]).collect::<Vec<_>>())
        })?;
        Ok(found.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests;
