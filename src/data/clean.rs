//! Cleaning: a chain of named steps, each of which changes a document, drops it or lets it pass.
//!
//! Duty: the steps and their settings, in one registry ([`CleanStep`]); running a chain over the
//! parts of a corpus, with what each step saw, dropped and why. A step is one file and one line.
//! Limits: a document is held whole, so one of more than [`DOCUMENT_BYTES_MAX`] is dropped.
//! Prohibition: no result depends on other documents, but through what a step has surveyed.

mod block_urls;
mod block_words;
mod boilerplate;
mod c4;
mod chain;
mod code;
mod config;
mod document;
mod fineweb_quality;
mod gopher_quality;
mod gopher_repetition;
mod html;
mod language;
mod length;
mod line_rules;
mod lines;
mod pii;
pub mod quality;
mod report;
mod settings;
mod signs;
mod table;
#[cfg(test)]
mod testing;
mod unicode;
mod wikitext;
mod words;

use std::path::PathBuf;

use super::error::DataError;
use crate::config::tagged::tagged;
use block_urls::BlockUrls;
use block_words::BlockWords;
use boilerplate::Boilerplate;
pub use c4::sentences_in;
use c4::{C4, C4Paragraphs};
pub(in crate::data) use chain::{Chain, Cleaned};
use code::Code;
pub use config::CleanChain;
pub use document::Document;
use fineweb_quality::FinewebQuality;
use gopher_quality::GopherQuality;
use gopher_repetition::GopherRepetition;
use html::Html;
use language::Language;
use length::Length;
use line_rules::Lines;
use pii::Pii;
use quality::Quality;
pub use report::{Dropped, Sample, StepReport};
pub(in crate::data) use settings::digest_of;
use unicode::Unicode;
use wikitext::Wikitext;

/// A longer document is dropped: it would have to be held whole by every thread.
pub const DOCUMENT_BYTES_MAX: usize = 32 << 20;

/// What a step says of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, changed or not.
    Keep,
    /// It is dropped, for this reason.
    Drop(&'static str),
}

/// The settings of a step.
pub trait Step {
    /// Checks every setting without touching a file; the problem names the setting.
    ///
    /// # Errors
    /// `setting: expected ..., got ...`.
    fn validate(&self) -> Result<(), String> {
        Ok(())
    }

    /// Files that the step reads: what they hold is part of the data's identity.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// The step as one that must see all documents before it works; most need not.
    fn survey(&self) -> Option<&dyn Survey> {
        None
    }

    /// Reads what the step needs and makes it ready to work.
    ///
    /// # Errors
    /// A file that is missing or no such file.
    fn open(&self) -> Result<Box<dyn Cleaner>, DataError>;
}

/// Shows the text of every document to whom it is given.
pub type Visit<'v> = dyn FnMut(&mut dyn FnMut(&str)) -> Result<(), DataError> + 'v;

/// A step that sees all documents before it works.
pub trait Survey {
    /// Calls `visit`, which shows the text of every document that comes to the step, as often as
    /// it needs; in all they are of about so many bytes.
    ///
    /// # Errors
    /// Those of `visit`.
    fn open_after(&self, bytes: u64, visit: &mut Visit<'_>) -> Result<Box<dyn Cleaner>, DataError>;
}

/// A step at work. It is shared by all threads.
pub trait Cleaner: Send + Sync {
    /// Judges or changes a document.
    fn apply(&self, document: &mut Document) -> Verdict;
}

tagged! {
    /// One step of `data.clean`.
    CleanStep by "step" as Step;
    /// Broken and unusual characters.
    "unicode" => Unicode(Unicode),
    /// Pages of the web.
    "html" => Html(Html),
    /// Pages of a wiki.
    "wikitext" => Wikitext(Wikitext),
    /// Too short and too long documents.
    "length" => Length(Length),
    /// Documents in other languages.
    "language" => Language(Language),
    /// Gopher's rules of quality.
    "gopher_quality" => GopherQuality(GopherQuality),
    /// Gopher's rules of repetition.
    "gopher_repetition" => GopherRepetition(GopherRepetition),
    /// C4's rules.
    "c4" => C4(C4),
    /// mC4's rule of long lines.
    "c4_paragraphs" => C4Paragraphs(C4Paragraphs),
    /// FineWeb's rules.
    "fineweb_quality" => FinewebQuality(FinewebQuality),
    /// Rules of single lines.
    "lines" => Lines(Lines),
    /// Lines that stand in many documents.
    "boilerplate" => Boilerplate(Boilerplate),
    /// Addresses, numbers and keys of persons.
    "pii" => Pii(Pii),
    /// Documents with words of a list.
    "block_words" => BlockWords(BlockWords),
    /// Documents by their address.
    "block_urls" => BlockUrls(BlockUrls),
    /// Source files that nobody wrote.
    "code" => Code(Code),
    /// A score by a trained classifier.
    "quality" => Quality(Quality),
}

#[cfg(test)]
mod tests;
