//! `boilerplate`: takes lines away that stand in many documents of the source: menus, notices,
//! headers of mails.
//!
//! Duty: counts in how many documents each line stands, exactly, before it works; so it needs a
//! pass over all documents of its own. Limits: holds the hashes of the lines of so much text, and
//! makes several passes over more. Two lines with the same 64-bit hash count as the same.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::settings::share;
use super::table::{Table, hash_of};
use super::{Cleaner, Document, Step, Survey, Verdict, Visit};
use crate::data::error::DataError;

#[cfg(test)]
mod tests;

/// Which lines are boilerplate.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Boilerplate {
    /// A line in more documents than this is taken away from all.
    pub max_documents: u64,
    /// Shorter lines stay: brackets, numbers.
    pub min_characters: u64,
    /// Largest share of its characters that a document may lose.
    pub max_removed: f64,
}

impl Default for Boilerplate {
    fn default() -> Self {
        Self { max_documents: 10, min_characters: 10, max_removed: 1.0 }
    }
}

/// Bytes of text whose lines are counted in one pass.
const PASS_BYTES: u64 = 1 << 30;

impl Step for Boilerplate {
    fn validate(&self) -> Result<(), String> {
        share("max_removed", self.max_removed)
    }

    fn open(&self) -> Result<Box<dyn Cleaner>, DataError> {
        Ok(Box::new(Known { config: self.clone(), lines: HashSet::new() }))
    }

    fn survey(&self) -> Option<&dyn Survey> {
        Some(self)
    }
}

impl Boilerplate {
    fn counts<'a>(&self, text: &'a str) -> impl Iterator<Item = &'a str> {
        let least = self.min_characters as usize;
        let trimmed = text.split('\n').map(str::trim);
        trimmed.filter(move |line| line.len() >= least && line.chars().count() >= least)
    }
}

impl Survey for Boilerplate {
    fn open_after(&self, bytes: u64, visit: &mut Visit<'_>) -> Result<Box<dyn Cleaner>, DataError> {
        let passes = bytes.div_ceil(PASS_BYTES).max(1);
        let mut lines = HashSet::new();
        for pass in 0..passes {
            let mut hashes: Vec<u64> = Vec::new();
            let mut table = Table::default();
            visit(&mut |text| {
                // A document counts once.
                table.clear(1 + text.bytes().filter(|&byte| byte == b'\n').count());
                for line in self.counts(text) {
                    let hash = hash_of(line.as_bytes());
                    if hash % passes == pass && table.insert(hash) {
                        hashes.push(hash);
                    }
                }
            })?;
            hashes.sort_unstable();
            let often = hashes.chunk_by(|a, b| a == b);
            let often = often.filter(|equal| equal.len() as u64 > self.max_documents);
            lines.extend(often.map(|equal| equal[0]));
        }
        Ok(Box::new(Known { config: self.clone(), lines }))
    }
}

struct Known {
    config: Boilerplate,
    lines: HashSet<u64>,
}

impl Cleaner for Known {
    fn apply(&self, document: &mut Document) -> Verdict {
        if self.lines.is_empty() {
            return Verdict::Keep;
        }
        let before = document.characters();
        document.rewrite(|text, out| {
            for line in text.split_inclusive('\n') {
                let counted = self.config.counts(line).next();
                if !counted.is_some_and(|line| self.lines.contains(&hash_of(line.as_bytes()))) {
                    out.push_str(line);
                }
            }
            out.len() != text.len()
        });
        if document.text().trim().is_empty() {
            return Verdict::Drop("nothing_left");
        }
        let removed = before - document.characters();
        match removed as f64 / before as f64 > self.config.max_removed {
            true => Verdict::Drop("too_much_removed"),
            false => Verdict::Keep,
        }
    }
}
