//! A chain at work on the parts of a corpus.
//!
//! Duty: takes every document of a part through the steps and packs what is left. Limits: one
//! document and one part for each thread. Prohibition: no order, no threads, no files of its own.

use super::report::StepReport;
use super::{CleanChain, Cleaner, DOCUMENT_BYTES_MAX, Document, Verdict};
use crate::data::error::DataError;
use crate::data::source::parts::Part;
use crate::data::source::spool::{Block, Packed};
use crate::data::source::{Corpus, PartCount, Piece};

/// The step in front of all: what is too long to be held.
const WHOLE: &str = "whole";
/// A block of so many bytes is worth packing by itself.
const BLOCK_BYTES: usize = 256 << 10;

/// The steps, ready to work.
pub(in crate::data) struct Chain {
    steps: Vec<(String, Box<dyn Cleaner>)>,
}

/// What became of a part.
pub(in crate::data) struct Cleaned {
    /// Packed already if it is large enough.
    pub(in crate::data) packed: Option<Packed>,
    /// Else the documents.
    pub(in crate::data) block: Block,
    /// What each step did; the first one is what is in front of all.
    pub(in crate::data) reports: Vec<StepReport>,
    /// Records that were no documents.
    pub(in crate::data) passed_over: PartCount,
}

impl Chain {
    /// Opens every step. An empty chain lets every document pass.
    ///
    /// # Errors
    /// As [`super::Step::open`].
    pub(in crate::data) fn open(config: &CleanChain) -> Result<Self, DataError> {
        let open = |step: &super::CleanStep| Ok((step.name(), step.get().open()?));
        Ok(Self { steps: config.0.iter().map(open).collect::<Result<_, DataError>>()? })
    }

    /// Reports of nothing yet, one for each step.
    pub(in crate::data) fn reports(&self) -> Vec<StepReport> {
        let names = self.steps.iter().map(|(name, _)| name.as_str());
        [WHOLE].into_iter().chain(names).map(StepReport::new).collect()
    }

    /// Where a text may be cut into parts: nowhere, if it can be held.
    pub(in crate::data) fn cut(text: &str) -> Option<usize> {
        (text.len() > DOCUMENT_BYTES_MAX).then_some(text.len())
    }

    /// Takes a part through the chain.
    ///
    /// # Errors
    /// As [`Corpus::documents`].
    pub(in crate::data) fn clean(
        &self,
        corpus: &Corpus,
        part: &Part,
        document: &mut Document,
    ) -> Result<Cleaned, DataError> {
        let mut block = Block::default();
        let mut reports = self.reports();
        let passed_over = corpus.documents(part, &mut |piece| {
            if self.pass(&piece, document, &mut reports) {
                block.push(&Piece { text: document.text(), ..piece });
            }
            Ok(())
        })?;
        let large = block.text_bytes() >= BLOCK_BYTES;
        let packed = if large { block.pack() } else { None };
        Ok(Cleaned { packed, block, reports, passed_over })
    }

    /// Takes one document through the steps; whether it is kept.
    fn pass(&self, piece: &Piece<'_>, document: &mut Document, reports: &mut [StepReport]) -> bool {
        let (first, rest) = reports.split_first_mut().expect("there is one in front of all");
        let (file, offset) = (piece.file, piece.offset);
        if !piece.begins {
            return false;
        }
        if !piece.ends || piece.text.len() > DOCUMENT_BYTES_MAX {
            first.drop("too_long_to_hold", piece.text, file, offset);
            return false;
        }
        first.kept(piece.text.len(), piece.text.len(), false);
        document.set(piece.text, piece.url);
        for ((_, step), report) in self.steps.iter().zip(rest) {
            let before = document.text().len();
            match step.apply(document) {
                Verdict::Keep => {
                    let changed = document.take_changed();
                    report.kept(before, document.text().len(), changed);
                }
                Verdict::Drop(reason) => {
                    report.drop(reason, document.text(), file, offset);
                    return false;
                }
            }
        }
        true
    }
}
