//! `lines`: takes lines away, by rules of their own, and documents that lose too much: those of
//! RefinedWeb (arXiv 2306.01116) in the form that DCLM gave them.

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::settings::share;
use super::words::{Word, words_of};
use super::{Cleaner, Document, Step, Verdict};
use crate::data::error::DataError;

#[cfg(test)]
mod tests;

/// Words of signs alone do not count.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lines {
    /// Largest share of capitals among a line's characters.
    pub max_uppercase: f64,
    /// Largest share of digits.
    pub max_digits: f64,
    /// Fewest words.
    pub min_words: u64,
    /// Drop lines that count, as "3 likes" or "1.2K followers".
    pub counters: bool,
    /// Phrases that are taken out of lines of at most `phrase_line_words` words, at any place...
    pub phrases: Vec<String>,
    /// ... where the line begins...
    pub phrases_at_start: Vec<String>,
    /// ... and where it ends.
    pub phrases_at_end: Vec<String>,
    /// Most words of a line that phrases are taken out of.
    pub phrase_line_words: u64,
    /// Most line feeds behind one another; more become so many.
    pub max_line_feeds: u64,
    /// Largest share of its words that a document may lose.
    pub max_removed_words: f64,
}

const COUNTERS: &str = concat!(
    r"(?i)^\W*\d[,.\d]*[kmb]?\s+(?:likes|shares|comments|retweets|reposts|quotes|bookmarks",
    r"|upvotes|downvotes|downloads|views|followers)\W*$",
);

impl Default for Lines {
    fn default() -> Self {
        Self {
            max_uppercase: 0.5,
            max_digits: 0.999_999,
            min_words: 2,
            counters: true,
            phrases: vec!["items in cart".to_owned()],
            phrases_at_start: vec!["Sign-in".to_owned()],
            phrases_at_end: vec!["Read more...".to_owned()],
            phrase_line_words: 10,
            max_line_feeds: 2,
            max_removed_words: 0.05,
        }
    }
}

impl Step for Lines {
    fn validate(&self) -> Result<(), String> {
        share("max_uppercase", self.max_uppercase)?;
        share("max_digits", self.max_digits)?;
        share("max_removed_words", self.max_removed_words)?;
        let lists = [&self.phrases, &self.phrases_at_start, &self.phrases_at_end];
        match lists.iter().any(|list| list.iter().any(String::is_empty)) {
            true => Err("phrases: expected phrases of at least one letter, got none".to_owned()),
            false => Ok(()),
        }
    }

    fn open(&self) -> Result<Box<dyn Cleaner>, DataError> {
        let counters = Regex::new(COUNTERS).expect("it is one expression");
        Ok(Box::new(Rules { config: self.clone(), counters }))
    }
}

struct Rules {
    config: Lines,
    counters: Regex,
}

impl Cleaner for Rules {
    fn apply(&self, document: &mut Document) -> Verdict {
        let before = plain_words(document.words());
        document.rewrite(|text, out| {
            let (mut words, mut feeds) = (Vec::new(), 0);
            for line in text.split('\n') {
                if let Some(line) = self.rewritten(line, &mut words) {
                    out.push_str(&line);
                    // As many line feeds behind it as may be: blank lines count on.
                    feeds = if line.is_empty() { feeds + 1 } else { 1 };
                    if feeds <= self.config.max_line_feeds {
                        out.push('\n');
                    }
                }
            }
            // The last line has no end of its own.
            if out.ends_with('\n') && feeds <= self.config.max_line_feeds {
                out.pop();
            }
            out != text
        });
        if document.text().trim().is_empty() {
            return Verdict::Drop("nothing_left");
        }
        let removed = before.saturating_sub(plain_words(document.words()));
        match removed as f64 / before.max(1) as f64 > self.config.max_removed_words {
            true => Verdict::Drop("too_much_removed"),
            false => Verdict::Keep,
        }
    }
}

fn plain_words(words: &[Word]) -> u64 {
    words.iter().filter(|word| !word.signs).count() as u64
}

impl Rules {
    /// What is left of a line, if it is left.
    fn rewritten<'a>(
        &self,
        line: &'a str,
        words: &mut Vec<Word>,
    ) -> Option<std::borrow::Cow<'a, str>> {
        let config = &self.config;
        if line.is_empty() {
            return Some(line.into());
        }
        let (mut all, mut capitals, mut digits) = (0u64, 0u64, 0u64);
        for character in line.chars() {
            all += 1;
            capitals += u64::from(character.is_uppercase());
            digits += u64::from(character.is_ascii_digit());
        }
        let shares = [(capitals, config.max_uppercase), (digits, config.max_digits)];
        if shares.iter().any(|&(count, most)| count as f64 / all as f64 > most) {
            return None;
        }
        // A line that counts is short.
        if config.counters && digits > 0 && all < 100 && self.counters.is_match(line) {
            return None;
        }
        // Longer lines have enough words, and too many for phrases.
        let most = config.phrase_line_words.max(config.min_words);
        words_of(&line[..line.floor_char_boundary(most as usize * 64)], words);
        let count = plain_words(words);
        if count < config.min_words {
            return None;
        }
        if count > config.phrase_line_words {
            return Some(line.into());
        }
        let left = self.without_phrases(line);
        (left.len() == line.len() || !left.trim().is_empty()).then_some(left)
    }

    fn without_phrases<'a>(&self, line: &'a str) -> std::borrow::Cow<'a, str> {
        let mut left = line;
        for phrase in &self.config.phrases_at_start {
            left = left.strip_prefix(phrase.as_str()).map_or(left, str::trim_start);
        }
        for phrase in &self.config.phrases_at_end {
            left = left.strip_suffix(phrase.as_str()).map_or(left, str::trim_end);
        }
        let mut left = std::borrow::Cow::Borrowed(left);
        for phrase in &self.config.phrases {
            while let Some(at) = left.find(phrase.as_str()) {
                let (before, after) =
                    (left[..at].trim_end(), left[at + phrase.len()..].trim_start());
                let blank = if before.is_empty() || after.is_empty() { "" } else { " " };
                left = format!("{before}{blank}{after}").into();
            }
        }
        left
    }
}
