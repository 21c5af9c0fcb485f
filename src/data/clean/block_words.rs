//! `block_words`: drops documents with words or phrases of a list.
//!
//! Duty: case does not count; a word stands between signs that are none of a word, unless the list
//! is of a script without blanks. Limits: the list lies in memory.

use std::path::PathBuf;

use aho_corasick::AhoCorasick;
use serde::{Deserialize, Serialize};

use super::settings::read_list;
use super::{Cleaner, Document, Step, Verdict};
use crate::data::error::DataError;

#[cfg(test)]
mod tests;

/// The list, and how many of it are too many.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlockWords {
    /// Words and phrases.
    pub words: Vec<String>,
    /// A file with more of them, one a line; lines that begin with `#` are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Only whole words count.
    pub whole_words: bool,
    /// Most of them in a document, each as often as it occurs.
    pub max_matches: u64,
}

impl Default for BlockWords {
    fn default() -> Self {
        Self { words: Vec::new(), file: None, whole_words: true, max_matches: 0 }
    }
}

impl Step for BlockWords {
    fn validate(&self) -> Result<(), String> {
        match self.words.is_empty() && self.file.is_none() {
            true => Err("words: expected words or a file of them, got neither".to_owned()),
            false => Ok(()),
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        self.file.iter().cloned().collect()
    }

    fn open(&self) -> Result<Box<dyn Cleaner>, DataError> {
        let mut words = self.words.clone();
        if let Some(file) = &self.file {
            words.extend(read_list(file)?);
        }
        let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
        let found = AhoCorasick::builder().build(words).map_err(|error| DataError::Config {
            key: "data.clean",
            problem: format!("block_words: expected a list that fits into memory ({error})"),
        })?;
        let (whole_words, most) = (self.whole_words, self.max_matches);
        Ok(Box::new(Blocked { found, whole_words, most }))
    }
}

struct Blocked {
    found: AhoCorasick,
    whole_words: bool,
    most: u64,
}

impl Cleaner for Blocked {
    fn apply(&self, document: &mut Document) -> Verdict {
        let text = document.text().to_lowercase();
        let of_a_word = |character: Option<char>| {
            character.is_some_and(|character| character.is_alphanumeric() || character == '_')
        };
        let is_whole = |start: usize, end: usize| {
            !of_a_word(text[..start].chars().next_back()) && !of_a_word(text[end..].chars().next())
        };
        let mut found = 0;
        for one in self.found.find_overlapping_iter(&text) {
            found += u64::from(!self.whole_words || is_whole(one.start(), one.end()));
            if found > self.most {
                return Verdict::Drop("blocked_word");
            }
        }
        Verdict::Keep
    }
}
