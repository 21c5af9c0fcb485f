//! The samples of one split of one source.
//!
//! Duty: joins a stream, its windows and their order: number in, rows out. Ownership: the open
//! shards. Prohibition: no state; the same number is the same rows for every rank.

use std::path::PathBuf;

use super::config::Packing;
use super::error::DataError;
use super::order::{SampleOrder, Windows};
use super::packing::WholeDocuments;
use super::stream::TokenStream;
use super::window::{WindowLayout, WindowRows, count_targets, fill_window};

/// How samples are cut and ordered.
#[derive(Clone, Copy, Debug)]
pub struct SampleRule<'a> {
    /// The run's.
    pub seed: u64,
    /// Of the data, and of the source among them.
    pub identity: &'a str,
    /// How windows are marked.
    pub layout: WindowLayout,
    /// How documents are laid into them.
    pub packing: Packing,
    /// How they follow each other.
    pub windows: Windows,
    /// The token behind every document, which opens the next one.
    pub end_of_document: Option<u32>,
}

/// An open split.
pub struct Samples {
    stream: TokenStream,
    order: SampleOrder,
    layout: WindowLayout,
    packed: Option<WholeDocuments>,
    padding: i32,
}

impl Samples {
    /// Opens the shards of a split.
    ///
    /// # Errors
    /// [`DataError`]: a shard that is gone or damaged, or [`DataError::TooShort`].
    pub fn open(paths: &[PathBuf], rule: &SampleRule<'_>) -> Result<Self, DataError> {
        let SampleRule { seed, identity, layout, packing, windows, end_of_document } = *rule;
        let mut stream = TokenStream::open(paths)?;
        // Windows cut anywhere from documents that are not kept apart stay as they are in training.
        let opens = layout.document_masks
            || packing == Packing::WholeDocuments
            || windows == Windows::Sequential;
        if let Some(opener) = end_of_document.filter(|_| opens) {
            stream = stream.opened_by(opener)?;
        }
        let layout = WindowLayout { opened: end_of_document.is_some(), ..layout };
        let padding = end_of_document.unwrap_or(0) as i32;
        let length = layout.sequence_length;
        let (order, packed) = match packing {
            Packing::Concatenate => {
                (SampleOrder::new(seed, identity, stream.len(), length, windows)?, None)
            }
            Packing::WholeDocuments => {
                let packed = WholeDocuments::new(&stream, length, layout.opened)?;
                if packed.windows() == 0 {
                    return Err(DataError::too_short(stream.len(), 1));
                }
                let order = SampleOrder::of_windows(seed, identity, packed.windows(), windows);
                (order, Some(packed))
            }
        };
        Ok(Self { stream, order, layout, packed, padding })
    }

    /// Samples until each window has been used once.
    pub fn per_epoch(&self) -> u64 {
        self.order.windows_per_epoch()
    }

    /// Labels of a sample that are not ignored.
    ///
    /// # Errors
    /// [`DataError::Chunk`] if a shard is damaged.
    pub fn targets(&self, sample: u64) -> Result<u64, DataError> {
        let start = self.order.start(sample);
        match &self.packed {
            Some(packed) => Ok(packed.targets(start)),
            None => count_targets(&self.stream, start, &self.layout),
        }
    }

    /// Fills the rows of a sample and returns [`Self::targets`].
    ///
    /// # Errors
    /// [`DataError::Chunk`] if a shard is damaged.
    pub fn fill(&self, sample: u64, rows: WindowRows<'_>) -> Result<u64, DataError> {
        let start = self.order.start(sample);
        match &self.packed {
            Some(packed) => packed.fill(&self.stream, start, &self.layout, self.padding, rows),
            None => fill_window(&self.stream, start, &self.layout, self.padding, rows),
        }
    }
}
