//! The samples of one split of one source.
//!
//! Duty: joins a stream, its windows and their order: number in, rows out. Ownership: the open
//! shards. Prohibition: no state; the same number is the same rows for every rank.

use std::path::PathBuf;

use octet_kernels::random::RandomStream;

use super::config::Packing;
use super::error::DataError;
use super::order::{SampleOrder, Windows};
use super::packing::WholeDocuments;
use super::pairs::{Pair, Pairs};
use super::stream::TokenStream;
use super::window::{WindowLayout, WindowRows, count_targets, fill_window};

/// What a sample is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// A window of the stream of documents.
    #[default]
    Windows,
    /// Two texts, with room in the sequence for so many tokens beside theirs.
    Pairs {
        /// Tokens beside those of the texts.
        specials: usize,
    },
}

/// How samples are cut and ordered.
#[derive(Clone, Copy, Debug)]
pub struct SampleRule<'a> {
    /// The run's.
    pub seed: u64,
    /// Of the data, and of the source among them.
    pub identity: &'a str,
    /// What they are.
    pub cut: Cut,
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
    pairs: Option<Pairs>,
    padding: i32,
}

impl Samples {
    /// Opens the shards of a split.
    ///
    /// # Errors
    /// [`DataError`]: a shard that is gone or damaged, or [`DataError::TooShort`].
    pub fn open(paths: &[PathBuf], rule: &SampleRule<'_>) -> Result<Self, DataError> {
        let SampleRule { seed, identity, cut, layout, packing, windows, end_of_document } = *rule;
        let mut stream = TokenStream::open(paths)?;
        if let Cut::Pairs { specials } = cut {
            let room = layout.sequence_length.saturating_sub(specials);
            let pairs = Pairs::new(&stream, room, end_of_document.is_some())?;
            let order = SampleOrder::of_windows(seed, identity, pairs.chunks(), windows);
            return Ok(Self {
                stream,
                order,
                layout,
                packed: None,
                pairs: Some(pairs),
                padding: 0,
            });
        }
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
        Ok(Self { stream, order, layout, packed, pairs: None, padding })
    }

    /// Samples until each window has been used once.
    pub fn per_epoch(&self) -> u64 {
        self.order.windows_per_epoch()
    }

    /// The pair that turn `sample` makes, for whoever draws from `noise` at `draw`; `None` where
    /// samples are windows.
    pub fn pair(&self, sample: u64, draw: u64, noise: &RandomStream) -> Option<Pair> {
        Some(self.pairs.as_ref()?.place(self.order.start(sample), draw, noise))
    }

    /// Reads tokens of a pair.
    ///
    /// # Errors
    /// [`DataError::Chunk`] if a shard is damaged.
    pub fn read(&self, start: u64, tokens: &mut [i32]) -> Result<(), DataError> {
        self.stream.read(start, tokens)
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
