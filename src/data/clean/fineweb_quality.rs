//! `fineweb_quality`: the rules that FineWeb adds (arXiv 2406.17557), as datatrove keeps them:
//! lines that end sentences, short lines, repeated lines, and lists.

use serde::{Deserialize, Serialize};

use super::gopher_repetition::duplicates;
use super::settings::share;
use super::signs::is_terminal;
use super::{Cleaner, Document, Step, Verdict};
use crate::data::error::DataError;

#[cfg(test)]
mod tests;

/// Blank lines do not count.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FinewebQuality {
    /// Smallest share of lines that end with a sign that ends sentences.
    pub min_terminal_lines: f64,
    /// Largest share of short lines.
    pub max_short_lines: f64,
    /// Most characters of a short line.
    pub short_line_characters: u64,
    /// Largest share of characters in lines that occurred before.
    pub max_duplicate_characters: f64,
    /// Most line feeds for each word.
    pub max_line_feed_ratio: f64,
}

impl Default for FinewebQuality {
    fn default() -> Self {
        Self {
            min_terminal_lines: 0.12,
            max_short_lines: 0.67,
            short_line_characters: 30,
            max_duplicate_characters: 0.01,
            max_line_feed_ratio: 0.3,
        }
    }
}

impl Step for FinewebQuality {
    fn validate(&self) -> Result<(), String> {
        share("min_terminal_lines", self.min_terminal_lines)?;
        share("max_short_lines", self.max_short_lines)?;
        share("max_duplicate_characters", self.max_duplicate_characters)
    }

    fn open(&self) -> Result<Box<dyn Cleaner>, DataError> {
        Ok(Box::new(self.clone()))
    }
}

impl Cleaner for FinewebQuality {
    fn apply(&self, document: &mut Document) -> Verdict {
        let view = document.view();
        let lines = || view.text.split('\n').filter(|line| !line.trim().is_empty());
        let (mut all, mut ended, mut short) = (0u64, 0u64, 0u64);
        let most = self.short_line_characters as usize;
        for line in lines() {
            all += 1;
            ended += u64::from(line.ends_with(is_terminal));
            short += u64::from(line.len() <= most || line.chars().count() <= most);
        }
        if all == 0 {
            return Verdict::Drop("empty");
        }
        if (ended as f64 / all as f64) < self.min_terminal_lines {
            return Verdict::Drop("few_terminal_lines");
        }
        if short as f64 / all as f64 > self.max_short_lines {
            return Verdict::Drop("short_lines");
        }
        let feeds = view.text.bytes().filter(|&byte| byte == b'\n').count();
        let (_, _, again) = duplicates(lines(), view.table, feeds + 1);
        if again as f64 / (view.characters - feeds) as f64 > self.max_duplicate_characters {
            return Verdict::Drop("duplicate_characters");
        }
        match feeds as f64 / view.words.len().max(1) as f64 > self.max_line_feed_ratio {
            true => Verdict::Drop("list"),
            false => Verdict::Keep,
        }
    }
}
