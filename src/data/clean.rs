//! Cleaning: a chain of named steps, each of which changes a document, drops it or lets it pass.
//!
//! Duty: the steps and their settings, in one registry ([`CleanStep`]); running a chain over the
//! parts of a corpus, with what each step saw, dropped and why. A step is one file and one line.
//! Limits: a document is held whole, so one of more than [`DOCUMENT_BYTES_MAX`] is dropped.
//! Prohibition: no result depends on other documents, but through what a step has surveyed.

mod chain;
mod config;
mod document;
mod length;
mod report;
mod unicode;

pub(in crate::data) use chain::{Chain, Cleaned};
pub use config::CleanChain;
pub use document::Document;
pub use report::{Dropped, Sample, StepReport};

use super::error::DataError;
use crate::config::tagged::tagged;
use length::Length;
use unicode::Unicode;

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

    /// Reads what the step needs and makes it ready to work.
    ///
    /// # Errors
    /// A file that is missing or no such file.
    fn open(&self) -> Result<Box<dyn Cleaner>, DataError>;
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
    /// Too short and too long documents.
    "length" => Length(Length),
}

#[cfg(test)]
mod tests;
