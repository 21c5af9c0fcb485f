//! `language`: keeps documents in some languages, by the crate whatlang.
//!
//! Duty: the language of the text's beginning, with the library's score, which is of the margin
//! between the best and the second. Limits: looks at so many bytes from the middle of the text,
//! since the library's time follows the length. Prohibition: no model of its own.

use serde::{Deserialize, Serialize};
use whatlang::{Detector, Lang};

use super::settings::share;
use super::{Cleaner, Document, Step, Verdict};
use crate::data::error::DataError;

#[cfg(test)]
mod tests;

/// Which languages, and how sure.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Language {
    /// The languages that are kept, by their codes of ISO 639-3, as `eng`.
    pub keep: Vec<String>,
    /// Smallest score.
    pub min_score: f64,
    /// The languages that are told apart; all that the library knows if none is given.
    pub among: Vec<String>,
    /// Bytes of text that are looked at.
    pub bytes: u64,
}

impl Default for Language {
    fn default() -> Self {
        Self { keep: vec!["eng".to_owned()], min_score: 0.65, among: Vec::new(), bytes: 1000 }
    }
}

fn code(name: &str, code: &str) -> Result<Lang, String> {
    Lang::from_code(code).ok_or_else(|| {
        let known: Vec<&str> = Lang::all().iter().map(|lang| lang.code()).collect();
        format!("{name}: expected codes among {}, got \"{code}\"", known.join(", "))
    })
}

impl Language {
    fn languages(name: &str, codes: &[String]) -> Result<Vec<Lang>, String> {
        codes.iter().map(|one| code(name, one)).collect()
    }
}

impl Step for Language {
    fn validate(&self) -> Result<(), String> {
        let keep = Self::languages("keep", &self.keep)?;
        let among = Self::languages("among", &self.among)?;
        if keep.is_empty() {
            return Err("keep: expected at least one language, got none".to_owned());
        }
        if let Some(lang) = keep.iter().find(|lang| !among.is_empty() && !among.contains(lang)) {
            return Err(format!("among: expected all of keep, got no \"{}\"", lang.code()));
        }
        if self.bytes == 0 {
            return Err("bytes: expected at least 1, got 0".to_owned());
        }
        share("min_score", self.min_score)
    }

    fn open(&self) -> Result<Box<dyn Cleaner>, DataError> {
        let wrong = |problem| DataError::Config { key: "data.clean", problem };
        let keep = Self::languages("language.keep", &self.keep).map_err(wrong)?;
        let among = Self::languages("language.among", &self.among).map_err(wrong)?;
        let detector =
            if among.is_empty() { Detector::new() } else { Detector::with_allowlist(among) };
        let (min_score, bytes) = (self.min_score, self.bytes as usize);
        Ok(Box::new(Detected { detector, keep, min_score, bytes }))
    }
}

struct Detected {
    detector: Detector,
    keep: Vec<Lang>,
    min_score: f64,
    bytes: usize,
}

/// About so many bytes from the middle of a text, where it is least like others' beginnings.
pub(super) fn middle(text: &str, bytes: usize) -> &str {
    let start = text.floor_char_boundary(text.len().saturating_sub(bytes) / 2);
    &text[start..text.floor_char_boundary((start + bytes).min(text.len()))]
}

impl Cleaner for Detected {
    fn apply(&self, document: &mut Document) -> Verdict {
        match self.detector.detect(middle(document.text(), self.bytes)) {
            None => Verdict::Drop("unknown_language"),
            Some(found) if !self.keep.contains(&found.lang()) => Verdict::Drop("other_language"),
            Some(found) if found.confidence() < self.min_score => Verdict::Drop("unsure_language"),
            Some(_) => Verdict::Keep,
        }
    }
}
