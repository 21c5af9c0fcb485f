//! A chain at work on the parts of a corpus.
//!
//! Duty: takes every document of a part through the steps and packs what is left. Limits: one
//! document and one part for each thread. Prohibition: no order, no threads, no files of its own.

use std::cell::Cell;

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
    /// Opens every step. An empty chain lets every document pass. If the first step must see all
    /// documents, these are those of `corpus`, and `progress` hears of every part of them.
    ///
    /// # Errors
    /// As [`super::Step::open`], and reading the corpus.
    pub(in crate::data) fn open(
        config: &CleanChain,
        corpus: &Corpus,
        progress: &mut dyn FnMut() -> Result<(), DataError>,
    ) -> Result<Self, DataError> {
        let mut open = |step: &super::CleanStep| {
            let opened = match step.get().survey() {
                Some(survey) => {
                    survey.open_after(corpus.bytes, &mut |see| show_all(corpus, see, progress))?
                }
                None => step.get().open()?,
            };
            Ok((step.name().to_owned(), opened))
        };
        Ok(Self { steps: config.0.iter().map(&mut open).collect::<Result<_, DataError>>()? })
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

    /// Takes a part through the chain, step by step: the name of each, the bytes that came to it,
    /// and what `clock` says that it took.
    ///
    /// # Errors
    /// As [`Corpus::documents`].
    pub(in crate::data) fn timed(
        &self,
        corpus: &Corpus,
        part: &Part,
        document: &mut Document,
        clock: &mut dyn FnMut() -> f64,
    ) -> Result<Vec<(String, u64, f64)>, DataError> {
        let mut times: Vec<_> = self.steps.iter().map(|(name, _)| (name.clone(), 0, 0.0)).collect();
        corpus.documents(part, &mut |piece| {
            document.set(piece.text, piece.url);
            for ((_, step), (_, bytes, seconds)) in self.steps.iter().zip(&mut times) {
                *bytes += document.text().len() as u64;
                let before = clock();
                let verdict = step.apply(document);
                *seconds += clock() - before;
                if verdict != Verdict::Keep {
                    break;
                }
            }
            Ok(())
        })?;
        Ok(times)
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
            let verdict = step.apply(document);
            document.take_score().into_iter().for_each(|score| report.score(score));
            match verdict {
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

/// Shows the text of every document that can be held.
fn show_all(
    corpus: &Corpus,
    see: &mut dyn FnMut(&str),
    progress: &mut dyn FnMut() -> Result<(), DataError>,
) -> Result<(), DataError> {
    let spare: Cell<Option<Part>> = Cell::new(None);
    corpus.for_each_part(
        &Chain::cut,
        &mut || Ok(spare.take().unwrap_or_default()),
        &mut |mut part| {
            corpus.documents(&part, &mut |piece| {
                if piece.begins && piece.ends {
                    see(piece.text);
                }
                Ok(())
            })?;
            part.clear();
            spare.set(Some(part));
            progress()
        },
    )
}
