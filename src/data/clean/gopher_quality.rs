//! `gopher_quality`: the quality rules of Gopher (arXiv 2112.11446, table A1), as datatrove keeps
//! them: numbers and lengths of words, shares of signs, bullets, ellipses and letters, and words
//! that English text has.

use serde::{Deserialize, Serialize};

use super::lines::lines_of;
use super::settings::{ordered, share};
use super::{Cleaner, Document, Step, Verdict};
use crate::data::error::DataError;

#[cfg(test)]
mod tests;

/// Words of signs alone do not count for the first four settings.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GopherQuality {
    /// Fewest words.
    pub min_words: u64,
    /// Most words.
    pub max_words: u64,
    /// Shortest mean length of a word, in characters.
    pub min_mean_word_length: f64,
    /// Longest mean length of a word.
    pub max_mean_word_length: f64,
    /// Most `#`, and most ellipses, for each word.
    pub max_symbol_ratio: f64,
    /// Largest share of lines that begin with a bullet.
    pub max_bullet_lines: f64,
    /// Largest share of lines that end with an ellipsis.
    pub max_ellipsis_lines: f64,
    /// Smallest share of words with a letter.
    pub min_alphabetic_words: f64,
    /// Fewest of `stop_words` that must occur.
    pub min_stop_words: u64,
    /// Whether one that occurs twice counts once.
    pub stop_words_distinct: bool,
    /// What most texts contain; case counts.
    pub stop_words: Vec<String>,
}

impl Default for GopherQuality {
    fn default() -> Self {
        let stop_words = ["the", "be", "to", "of", "and", "that", "have", "with"];
        Self {
            min_words: 50,
            max_words: 100_000,
            min_mean_word_length: 3.0,
            max_mean_word_length: 10.0,
            max_symbol_ratio: 0.1,
            max_bullet_lines: 0.9,
            max_ellipsis_lines: 0.3,
            min_alphabetic_words: 0.8,
            min_stop_words: 2,
            stop_words_distinct: true,
            stop_words: stop_words.map(str::to_owned).into(),
        }
    }
}

impl Step for GopherQuality {
    fn validate(&self) -> Result<(), String> {
        ordered("max_words", self.min_words, self.max_words)?;
        ordered("max_mean_word_length", self.min_mean_word_length, self.max_mean_word_length)?;
        share("max_bullet_lines", self.max_bullet_lines)?;
        share("max_ellipsis_lines", self.max_ellipsis_lines)?;
        share("min_alphabetic_words", self.min_alphabetic_words)
    }

    fn open(&self) -> Result<Box<dyn Cleaner>, DataError> {
        Ok(Box::new(self.clone()))
    }
}

impl Cleaner for GopherQuality {
    fn apply(&self, document: &mut Document) -> Verdict {
        let view = document.view();
        let (text, words) = (view.text, view.words);
        let plain = || words.iter().filter(|word| !word.signs);
        let count = plain().count() as u64;
        if count < self.min_words {
            return Verdict::Drop("too_few_words");
        }
        if count > self.max_words {
            return Verdict::Drop("too_many_words");
        }
        let mean =
            plain().map(|word| u64::from(word.characters)).sum::<u64>() as f64 / count as f64;
        if mean < self.min_mean_word_length {
            return Verdict::Drop("short_words");
        }
        if mean > self.max_mean_word_length {
            return Verdict::Drop("long_words");
        }
        let all = words.len() as f64;
        let hashes = text.bytes().filter(|&byte| byte == b'#').count();
        if hashes as f64 / all > self.max_symbol_ratio {
            return Verdict::Drop("hashes");
        }
        let ellipses = text.matches("...").count() + text.matches('…').count();
        if ellipses as f64 / all > self.max_symbol_ratio {
            return Verdict::Drop("ellipses");
        }
        if let Some(reason) = self.judge_lines(text) {
            return Verdict::Drop(reason);
        }
        let letters = words.iter().filter(|word| word.letters).count();
        if (letters as f64 / all) < self.min_alphabetic_words {
            return Verdict::Drop("few_letters");
        }
        let stop = |word| self.stop_words.iter().position(|stop| stop == view.word(word));
        let mut seen = vec![0u64; self.stop_words.len()];
        words.iter().filter_map(stop).for_each(|at| seen[at] += 1);
        let most = if self.stop_words_distinct { 1 } else { u64::MAX };
        match seen.iter().map(|&times| times.min(most)).sum::<u64>() < self.min_stop_words {
            true => Verdict::Drop("few_stop_words"),
            false => Verdict::Keep,
        }
    }
}

impl GopherQuality {
    fn judge_lines(&self, text: &str) -> Option<&'static str> {
        let (mut lines, mut bullets, mut ellipses) = (0u64, 0u64, 0u64);
        for line in lines_of(text) {
            lines += 1;
            bullets += u64::from(line.trim_start().starts_with(['•', '-']));
            let end = line.trim_end();
            ellipses += u64::from(end.ends_with("...") || end.ends_with('…'));
        }
        if bullets as f64 / lines as f64 > self.max_bullet_lines {
            return Some("bullets");
        }
        (ellipses as f64 / lines as f64 > self.max_ellipsis_lines).then_some("ellipsis_lines")
    }
}
