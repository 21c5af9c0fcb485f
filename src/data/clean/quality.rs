//! `quality`: a score of each document by a linear classifier over hashed words and pairs of
//! words, which `octet train-filter` makes from good and bad examples; the kind of classifier that
//! DCLM (arXiv 2406.11794) and FineWeb-Edu filter by.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::settings::share;
use super::{Cleaner, Document, Step, Verdict};
use crate::data::error::DataError;
pub use model::Classifier;
pub use train::{Trained, train, train_on};

mod model;
mod train;

/// The classifier, and the score that it must give.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quality {
    /// The file that `octet train-filter` wrote.
    pub file: PathBuf,
    /// Smallest score of a document that is kept, from 0 to 1.
    pub min_score: f64,
}

impl Default for Quality {
    fn default() -> Self {
        Self { file: PathBuf::new(), min_score: 0.5 }
    }
}

impl Step for Quality {
    fn validate(&self) -> Result<(), String> {
        if self.file.as_os_str().is_empty() {
            return Err("file: expected the file that train-filter wrote, got nothing".to_owned());
        }
        share("min_score", self.min_score)
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.file.clone()]
    }

    fn open(&self) -> Result<Box<dyn Cleaner>, DataError> {
        let classifier = Classifier::load(&self.file)?;
        Ok(Box::new(Scored { classifier, min_score: self.min_score }))
    }
}

struct Scored {
    classifier: Classifier,
    min_score: f64,
}

impl Cleaner for Scored {
    fn apply(&self, document: &mut Document) -> Verdict {
        let score = self.classifier.score(document);
        document.note_score(score);
        match score < self.min_score {
            true => Verdict::Drop("low_score"),
            false => Verdict::Keep,
        }
    }
}

#[cfg(test)]
mod tests;
