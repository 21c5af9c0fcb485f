//! `gopher_repetition`: the repetition rules of Gopher (arXiv 2112.11446, table A1), as datatrove
//! keeps them: how much of a text is made of paragraphs, lines and n-grams that occurred before.
//!
//! Shares of characters are of the whole text. An n-gram is the words behind one another without
//! what stands between them; behind one that occurred before, the search goes on with the next
//! word that is not part of it.

use serde::{Deserialize, Serialize};

use super::document::View;
use super::lines::between_line_feeds;
use super::settings::share;
use super::table::{Table, hash_of};
use super::words::Word;
use super::{Cleaner, Document, Step, Verdict};
use crate::data::error::DataError;

#[cfg(test)]
mod tests;

/// Largest shares of a text.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GopherRepetition {
    /// Of paragraphs that occurred before.
    pub max_duplicate_paragraphs: f64,
    /// Of their characters.
    pub max_duplicate_paragraph_characters: f64,
    /// Of lines that occurred before.
    pub max_duplicate_lines: f64,
    /// Of their characters.
    pub max_duplicate_line_characters: f64,
    /// Of the characters of the most frequent n-gram, for n = 2, 3 and so on.
    pub max_top_ngram: Vec<f64>,
    /// Of the characters of n-grams that occurred before, for n = 5, 6 and so on.
    pub max_duplicate_ngrams: Vec<f64>,
}

/// The first n of each list, and the reason for each n.
const TOP_FROM: usize = 2;
const TOP: [&str; 3] = ["top_2_gram", "top_3_gram", "top_4_gram"];
const DUPLICATE_FROM: usize = 5;
const DUPLICATE: [&str; 6] = [
    "duplicate_5_grams",
    "duplicate_6_grams",
    "duplicate_7_grams",
    "duplicate_8_grams",
    "duplicate_9_grams",
    "duplicate_10_grams",
];
/// Of the hash of a text: a sum over its bytes, each times a power of this odd number.
const BASE: u64 = 0x9e37_79b9_7f4a_7c15 | 1;
const INVERSE: u64 = inverse(BASE);

/// The inverse of an odd number modulo 2^64, by Newton's method.
const fn inverse(odd: u64) -> u64 {
    let mut x = odd;
    let mut i = 0;
    while i < 6 {
        x = x.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(x)));
        i += 1;
    }
    x
}

impl Default for GopherRepetition {
    fn default() -> Self {
        Self {
            max_duplicate_paragraphs: 0.3,
            max_duplicate_paragraph_characters: 0.2,
            max_duplicate_lines: 0.3,
            max_duplicate_line_characters: 0.2,
            max_top_ngram: vec![0.20, 0.18, 0.16],
            max_duplicate_ngrams: vec![0.15, 0.14, 0.13, 0.12, 0.11, 0.10],
        }
    }
}

impl Step for GopherRepetition {
    fn validate(&self) -> Result<(), String> {
        share("max_duplicate_paragraphs", self.max_duplicate_paragraphs)?;
        share("max_duplicate_paragraph_characters", self.max_duplicate_paragraph_characters)?;
        share("max_duplicate_lines", self.max_duplicate_lines)?;
        share("max_duplicate_line_characters", self.max_duplicate_line_characters)?;
        for (name, list, most) in [
            ("max_top_ngram", &self.max_top_ngram, TOP.len()),
            ("max_duplicate_ngrams", &self.max_duplicate_ngrams, DUPLICATE.len()),
        ] {
            if list.len() > most {
                return Err(format!("{name}: expected at most {most} shares, got {}", list.len()));
            }
            list.iter().try_for_each(|&value| share(name, value))?;
        }
        Ok(())
    }

    fn open(&self) -> Result<Box<dyn Cleaner>, DataError> {
        Ok(Box::new(self.clone()))
    }
}

impl Cleaner for GopherRepetition {
    fn apply(&self, document: &mut Document) -> Verdict {
        let mut view = document.view();
        if view.text.is_empty() {
            return Verdict::Drop("empty");
        }
        let judged = self.judge_pieces(&mut view).or_else(|| self.judge_ngrams(&mut view));
        judged.map_or(Verdict::Keep, Verdict::Drop)
    }
}

/// Pieces in all, those that occurred before, and the characters of these.
pub(super) fn duplicates<'a>(
    pieces: impl Iterator<Item = &'a str>,
    table: &mut Table,
    most: usize,
) -> (u64, u64, u64) {
    table.clear(most);
    let (mut all, mut again, mut characters) = (0, 0, 0);
    for piece in pieces {
        all += 1;
        if !table.insert(hash_of(piece.as_bytes())) {
            again += 1;
            characters += piece.chars().count() as u64;
        }
    }
    (all, again, characters)
}

impl GopherRepetition {
    fn judge_pieces(&self, view: &mut View<'_>) -> Option<&'static str> {
        let characters = view.characters as f64;
        let feeds = view.text.bytes().filter(|&byte| byte == b'\n').count();
        let trimmed = view.text.trim();
        let paragraphs = between_line_feeds(trimmed, 2);
        let (all, again, of_those) = duplicates(paragraphs, view.table, feeds / 2 + 1);
        if again as f64 / all as f64 > self.max_duplicate_paragraphs {
            return Some("duplicate_paragraphs");
        }
        if of_those as f64 / characters > self.max_duplicate_paragraph_characters {
            return Some("duplicate_paragraph_characters");
        }
        let lines = between_line_feeds(view.text, 1);
        let (all, again, of_those) = duplicates(lines, view.table, feeds + 1);
        if again as f64 / all as f64 > self.max_duplicate_lines {
            return Some("duplicate_lines");
        }
        (of_those as f64 / characters > self.max_duplicate_line_characters)
            .then_some("duplicate_line_characters")
    }

    fn judge_ngrams(&self, view: &mut View<'_>) -> Option<&'static str> {
        let View { text, words, table, scratch, .. } = view;
        let characters = view.characters as f64;
        let joined = Joined::new(text, words, scratch);
        let count = words.len();
        for ((n, &most), reason) in (TOP_FROM..).zip(&self.max_top_ngram).zip(TOP) {
            let Some(grams) = (count + 1).checked_sub(n).filter(|&grams| grams > 0) else { break };
            let top = table.top((0..grams).map(|at| joined.hash(at, at + n)));
            // With a blank between its words.
            let length = joined.characters(top.first, top.first + n) + n as u64 - 1;
            if (u64::from(top.count) * length) as f64 / characters > most {
                return Some(reason);
            }
        }
        for ((n, &most), reason) in
            (DUPLICATE_FROM..).zip(&self.max_duplicate_ngrams).zip(DUPLICATE)
        {
            table.clear(count);
            let (mut at, mut again) = (0, 0);
            while at + n <= count {
                match table.insert(joined.hash(at, at + n)) {
                    true => at += 1,
                    false => {
                        again += joined.characters(at, at + n);
                        at += n;
                    }
                }
            }
            if again as f64 / characters > most {
                return Some(reason);
            }
        }
        None
    }
}

/// All words behind one another, with which any n-gram is hashed at once.
struct Joined<'a> {
    /// For each word, and for the end: the hash of all before, what undoes its place, and the
    /// characters before.
    marks: &'a [[u64; 3]],
}

impl<'a> Joined<'a> {
    fn new(text: &str, words: &[Word], scratch: &'a mut Vec<u64>) -> Self {
        scratch.clear();
        scratch.reserve(3 * (words.len() + 1));
        let (mut sum, mut power, mut undo, mut characters) = (0u64, 1u64, 1u64, 0u64);
        for word in words {
            scratch.extend([sum, undo, characters]);
            for &byte in &text.as_bytes()[word.start as usize..word.end as usize] {
                sum = sum.wrapping_add(power.wrapping_mul(u64::from(byte) + 1));
                power = power.wrapping_mul(BASE);
                undo = undo.wrapping_mul(INVERSE);
            }
            characters += u64::from(word.characters);
        }
        scratch.extend([sum, undo, characters]);
        Self { marks: scratch.as_chunks().0 }
    }

    /// The hash of the words from `start` to before `end`.
    fn hash(&self, start: usize, end: usize) -> u64 {
        let [from, undo, _] = self.marks[start];
        self.marks[end][0].wrapping_sub(from).wrapping_mul(undo)
    }

    fn characters(&self, start: usize, end: usize) -> u64 {
        self.marks[end][2] - self.marks[start][2]
    }
}
