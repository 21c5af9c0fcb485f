//! `c4` and `c4_paragraphs`: the rules of C4 (arXiv 1910.10683) and mC4, as datatrove keeps them.
//!
//! Lines are dropped that end without a mark of punctuation, have few words or a very long one, or
//! speak of JavaScript and cookies; then documents with few sentences left, with "lorem ipsum" or
//! with a curly bracket in a line that came so far. A sentence ends with a word that is one sign
//! which ends sentences; further signs belong to it.

use aho_corasick::AhoCorasick;
use serde::{Deserialize, Serialize};

use super::lines::lines_of;
use super::signs::is_terminal;
use super::words::{Word, words_of};
use super::{Cleaner, Document, Step, Verdict};
use crate::data::error::DataError;

#[cfg(test)]
mod tests;

/// What lines and documents must have.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct C4 {
    /// Lines must end with `.`, `?`, `!`, `"` or `'`, and not with `...`.
    pub terminal_punctuation: bool,
    /// Fewest words of a line, between blanks.
    pub min_words_per_line: u64,
    /// Most characters of a word of a line.
    pub max_word_length: u64,
    /// Fewest sentences of a document.
    pub min_sentences: u64,
    /// Take away `[1]`, `[edit]` and `[citation needed]`.
    pub citations: bool,
    /// Drop lines with "javascript".
    pub javascript: bool,
    /// Drop lines with phrases of policies, as "uses cookies".
    pub policies: bool,
    /// Drop documents with "lorem ipsum".
    pub lorem_ipsum: bool,
    /// Drop documents with `{`.
    pub curly_bracket: bool,
}

const PHRASES: [&str; 8] = [
    "lorem ipsum",
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
];
/// Positions in [`PHRASES`]; the rest are of policies.
const LOREM_IPSUM: usize = 0;
const JAVASCRIPT: usize = 1;

impl Default for C4 {
    fn default() -> Self {
        Self {
            terminal_punctuation: true,
            min_words_per_line: 3,
            max_word_length: 1000,
            min_sentences: 5,
            citations: true,
            javascript: true,
            policies: true,
            lorem_ipsum: true,
            curly_bracket: true,
        }
    }
}

impl Step for C4 {
    fn open(&self) -> Result<Box<dyn Cleaner>, DataError> {
        let phrases = AhoCorasick::builder().ascii_case_insensitive(true).build(PHRASES);
        Ok(Box::new(Rules { config: self.clone(), phrases: phrases.expect("few short phrases") }))
    }
}

struct Rules {
    config: C4,
    phrases: AhoCorasick,
}

/// What becomes of a line.
enum Line {
    Keep,
    Drop,
    DropDocument(&'static str),
}

impl Cleaner for Rules {
    fn apply(&self, document: &mut Document) -> Verdict {
        let mut verdict = Verdict::Keep;
        document.rewrite(|text, out| {
            let (mut sentences, mut words) = (0, Vec::new());
            let mut uncited = String::new();
            for line in lines_of(text) {
                let line = line.trim();
                let (judged, line) = self.judge(line, &mut uncited);
                match judged {
                    Line::Drop => continue,
                    Line::DropDocument(reason) => {
                        verdict = Verdict::Drop(reason);
                        return false;
                    }
                    Line::Keep => {}
                }
                if sentences < self.config.min_sentences {
                    words_of(line, &mut words);
                    sentences += sentences_of(line, &words);
                }
                out.push_str(line);
                out.push('\n');
            }
            if sentences < self.config.min_sentences {
                verdict = Verdict::Drop("few_sentences");
                return false;
            }
            out.truncate(out.trim_end().len());
            let blanks = out.len() - out.trim_start().len();
            out.drain(..blanks);
            out != text
        });
        verdict
    }
}

impl Rules {
    /// The verdict on a line, and what it is without citations.
    fn judge<'a>(&self, line: &'a str, uncited: &'a mut String) -> (Line, &'a str) {
        let config = &self.config;
        let most = config.max_word_length as usize;
        if line.len() > most && line.split_whitespace().any(|word| word.chars().count() > most) {
            return (Line::Drop, line);
        }
        let words = line.split_whitespace().take(config.min_words_per_line as usize).count() as u64;
        let line = match config.citations && without_citations(line, uncited) {
            true => uncited.as_str(),
            false => line,
        };
        let ended = line.ends_with(['.', '?', '!', '"', '\'']) && !line.ends_with("...");
        if config.terminal_punctuation && !ended || words < config.min_words_per_line {
            return (Line::Drop, line);
        }
        let mut found = [false; PHRASES.len()];
        // None of them overlaps another.
        self.phrases.find_iter(line).for_each(|phrase| found[phrase.pattern().as_usize()] = true);
        let policy = config.policies && found[JAVASCRIPT + 1..].contains(&true);
        let judged = match () {
            () if config.lorem_ipsum && found[LOREM_IPSUM] => Line::DropDocument("lorem_ipsum"),
            () if config.javascript && found[JAVASCRIPT] => Line::Drop,
            () if config.curly_bracket && line.contains('{') => Line::DropDocument("curly_bracket"),
            () if policy => Line::Drop,
            () => Line::Keep,
        };
        (judged, line)
    }
}

/// Writes a line without `[12]`, `[edit]` and `[citation needed]`; false if there are none.
fn without_citations(line: &str, out: &mut String) -> bool {
    if !line.contains('[') {
        return false;
    }
    out.clear();
    let mut rest = line;
    while let Some(at) = rest.find('[') {
        let inner = &rest[at + 1..];
        let digits = inner.len() - inner.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let length = ["edit", "citation needed"]
            .iter()
            .find(|word| inner.strip_prefix(**word).is_some_and(|after| after.starts_with(']')))
            .map_or(digits, |word| word.len());
        out.push_str(&rest[..at]);
        match inner[length..].strip_prefix(']') {
            Some(after) => rest = after,
            None => {
                out.push('[');
                rest = inner;
            }
        }
    }
    out.push_str(rest);
    out.len() != line.len()
}

/// Sentences of a text with these words.
pub(super) fn sentences_of(text: &str, words: &[Word]) -> u64 {
    let (mut sentences, mut ended) = (u64::from(!words.is_empty()), false);
    for word in words {
        let mut characters = text[word.start as usize..word.end as usize].chars();
        if ended && !word.signs {
            (sentences, ended) = (sentences + 1, false);
        }
        ended |= word.characters == 1 && characters.next().is_some_and(is_terminal);
    }
    sentences
}

/// The lines of a text as this step counts them, each with its sentences.
pub fn sentences_in(text: &str) -> impl Iterator<Item = (String, u64)> {
    lines_of(text).map(|line| {
        let (line, mut uncited, mut words) = (line.trim(), String::new(), Vec::new());
        let line = match without_citations(line, &mut uncited) {
            true => uncited,
            false => line.to_owned(),
        };
        words_of(&line, &mut words);
        let sentences = sentences_of(&line, &words);
        (line, sentences)
    })
}

/// mC4's rule: so many long lines.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct C4Paragraphs {
    /// Fewest lines that are long enough.
    pub min_paragraphs: u64,
    /// Fewest characters of such a line.
    pub min_characters: u64,
}

impl Default for C4Paragraphs {
    fn default() -> Self {
        Self { min_paragraphs: 3, min_characters: 200 }
    }
}

impl Step for C4Paragraphs {
    fn open(&self) -> Result<Box<dyn Cleaner>, DataError> {
        Ok(Box::new(self.clone()))
    }
}

impl Cleaner for C4Paragraphs {
    fn apply(&self, document: &mut Document) -> Verdict {
        let least = self.min_characters as usize;
        let long = |line: &&str| line.len() >= least && line.chars().count() >= least;
        let lines = document.text().split('\n').filter(long).take(self.min_paragraphs as usize);
        match (lines.count() as u64) < self.min_paragraphs {
            true => Verdict::Drop("few_paragraphs"),
            false => Verdict::Keep,
        }
    }
}
