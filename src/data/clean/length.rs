//! `length`: drops documents that are too short or too long.

use serde::{Deserialize, Serialize};

use super::{Cleaner, Document, Step, Verdict};
use crate::data::error::DataError;

#[cfg(test)]
mod tests;

/// Characters are Unicode scalar values.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Length {
    /// Fewest characters.
    pub min_characters: u64,
    /// Most characters.
    pub max_characters: u64,
}

impl Default for Length {
    fn default() -> Self {
        Self { min_characters: 1, max_characters: 10_000_000 }
    }
}

impl Step for Length {
    fn validate(&self) -> Result<(), String> {
        let Self { min_characters: min, max_characters: max } = self;
        match min <= max {
            true => Ok(()),
            false => Err(format!("max_characters: expected at least {min}, got {max}")),
        }
    }

    fn open(&self) -> Result<Box<dyn Cleaner>, DataError> {
        Ok(Box::new(self.clone()))
    }
}

impl Cleaner for Length {
    fn apply(&self, document: &mut Document) -> Verdict {
        match document.characters() as u64 {
            count if count < self.min_characters => Verdict::Drop("too_short"),
            count if count > self.max_characters => Verdict::Drop("too_long"),
            _ => Verdict::Keep,
        }
    }
}
