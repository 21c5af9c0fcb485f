//! A document on its way through the chain.
//!
//! Duty: the text, and what steps share about it so that each thing is found once. Prohibition:
//! knows no step.

/// A document that is cleaned.
#[derive(Debug, Default)]
pub struct Document {
    text: String,
    url: String,
    /// Second text, to write a changed one into.
    spare: String,
    changed: bool,
    characters: Option<usize>,
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
        self.changed = false;
        self.forget();
    }

    fn forget(&mut self) {
        self.characters = None;
    }

    /// The text as it is now.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Characters (Unicode scalar values) of the text.
    pub fn characters(&mut self) -> usize {
        *self.characters.get_or_insert_with(|| self.text.chars().count())
    }

    /// Its address; empty if it has none.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether a step has changed the text since this was last asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
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
