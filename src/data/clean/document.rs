//! A document on its way through the chain.
//!
//! Duty: the text, and what steps share about it so that each thing is found once. Prohibition:
//! knows no step.

use super::table::Table;
use super::words::{Word, words_of};

/// A document that is cleaned.
#[derive(Debug, Default)]
pub struct Document {
    text: String,
    url: String,
    /// Second text, to write a changed one into.
    spare: String,
    changed: bool,
    score: Option<f64>,
    words: Vec<Word>,
    words_are_found: bool,
    characters: Option<usize>,
    /// For steps that count lines or n-grams.
    pub(super) table: Table,
    /// Memory for steps.
    pub(super) scratch: Vec<u64>,
}

/// What most steps look at.
pub(super) struct View<'a> {
    pub(super) text: &'a str,
    /// Characters of the text.
    pub(super) characters: usize,
    pub(super) words: &'a [Word],
    pub(super) table: &'a mut Table,
    pub(super) scratch: &'a mut Vec<u64>,
}

impl Document {
    /// A document of this text, for tests and measurements.
    pub fn new(text: &str) -> Self {
        let mut document = Self::default();
        document.set(text, "");
        document
    }

    /// Puts another document in its place, using its memory again.
    pub fn set(&mut self, text: &str, url: &str) {
        self.text.clear();
        self.text.push_str(text);
        self.url.clear();
        self.url.push_str(url);
        (self.changed, self.score) = (false, None);
        self.forget();
    }

    fn forget(&mut self) {
        (self.words_are_found, self.characters) = (false, None);
    }

    /// The text as it is now.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Characters (Unicode scalar values) of the text.
    pub fn characters(&mut self) -> usize {
        *self.characters.get_or_insert_with(|| self.text.chars().count())
    }

    /// The words of the text.
    pub fn words(&mut self) -> &[Word] {
        if !self.words_are_found {
            words_of(&self.text, &mut self.words);
            self.words_are_found = true;
        }
        &self.words
    }

    /// Text, words and memory at once.
    pub(super) fn view(&mut self) -> View<'_> {
        let characters = self.characters();
        self.words();
        let Self { text, words, table, scratch, .. } = self;
        View { text, characters, words, table, scratch }
    }

    /// Its address; empty if it has none.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether a step has changed the text since this was last asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// What a step thinks of it, from 0 to 1, for the report.
    pub(super) fn note_score(&mut self, score: f64) {
        self.score = Some(score);
    }

    /// The score since this was last asked.
    pub(super) fn take_score(&mut self) -> Option<f64> {
        self.score.take()
    }

    /// Writes another text from this one. `write` says whether it differs.
    pub fn rewrite(&mut self, write: impl FnOnce(&str, &mut String) -> bool) {
        self.spare.clear();
        if write(&self.text, &mut self.spare) {
            std::mem::swap(&mut self.text, &mut self.spare);
            self.changed = true;
            self.forget();
        }
    }
}

impl View<'_> {
    /// The text of a word.
    pub(super) fn word(&self, word: &Word) -> &str {
        &self.text[word.start as usize..word.end as usize]
    }
}
