//! Cuts text into the words that byte pairs are merged in.
//!
//! Duty: the same words as the regular expression of a [`Pattern`]; the common ones by hand,
//! many times faster, others by the expression itself. Text between the matches of an expression
//! is a word of its own, so that none is lost. Prohibition: no tokens.

use fancy_regex::{Regex, RegexBuilder};

use super::classes::{CharacterClass, Classes};
use super::pattern::Pattern;

mod o200k;

/// Bytes of a part that an expression's engine can do whatever they are.
const PART_BYTES: usize = 256 << 10;

/// A pattern that is ready to cut.
pub(super) struct Splitter {
    rule: Rule,
    classes: &'static Classes,
}

enum Rule {
    Gpt2,
    /// The family of `cl100k`.
    Cl100k(Variant),
    O200k,
    Regex(Box<Regex>),
}

/// Where the members of the family differ.
#[derive(Clone, Copy)]
struct Variant {
    /// Most digits of a word.
    digits: usize,
    /// White space that ends the text is one word, even with line breaks in it.
    whole_end: bool,
}

impl Splitter {
    /// # Errors
    /// What is wrong with the expression.
    pub(super) fn new(pattern: &Pattern) -> Result<Self, String> {
        let rule = match pattern {
            Pattern::Gpt2 => Rule::Gpt2,
            Pattern::Cl100k => Rule::Cl100k(Variant { digits: 3, whole_end: true }),
            Pattern::Llama3 => Rule::Cl100k(Variant { digits: 3, whole_end: false }),
            Pattern::Qwen2 => Rule::Cl100k(Variant { digits: 1, whole_end: false }),
            Pattern::O200k => Rule::O200k,
            Pattern::Regex(expression) => {
                // The engine counts its steps, and gives up on a long run of white space.
                let regex = RegexBuilder::new(expression).backtrack_limit(usize::MAX).build();
                Rule::Regex(Box::new(regex.map_err(|error| error.to_string())?))
            }
        };
        Ok(Self { rule, classes: Classes::get() })
    }

    /// Calls `word` with each word of a text, in order and without gaps.
    ///
    /// # Errors
    /// What the regular expression's engine says when it gives up.
    pub(super) fn words<'a>(
        &self,
        text: &'a str,
        mut word: impl FnMut(&'a [u8]),
    ) -> Result<(), String> {
        let bytes = text.as_bytes();
        match &self.rule {
            Rule::Gpt2 => each(bytes, word, |start| self.gpt2_end(text, start)),
            Rule::Cl100k(variant) => {
                each(bytes, word, |start| self.cl100k_end(text, start, *variant));
            }
            Rule::O200k => each(bytes, word, |start| self.o200k_end(text, start)),
            Rule::Regex(regex) => {
                let mut start = 0;
                while start < bytes.len() {
                    let done = matches(regex, &text[start..], &mut word);
                    start += done.or_else(|reached| {
                        // The engine's memory of places is bounded: a run of a million spaces ends
                        // it. What it cannot do as a whole it does in parts.
                        let rest = &text[start + reached..];
                        let part = &rest[..rest.floor_char_boundary(PART_BYTES)];
                        let done = matches(regex, part, &mut word)
                            .map_err(|_| "its regular expression takes too many steps".to_owned());
                        done.map(|length| reached + length)
                    })?;
                }
            }
        }
        Ok(())
    }

    /// The last place at which a text can be cut without changing a word, whatever follows it and
    /// whatever stands before its first character. `None` if there is none; an expression that is
    /// not known by name has none.
    pub(super) fn last_cut(&self, text: &str) -> Option<usize> {
        let mut characters = text.char_indices().rev().peekable();
        while let Some((at, character)) = characters.next() {
            let &(_, before) = characters.peek()?;
            if self.parts(before, character) {
                return Some(at);
            }
        }
        None
    }

    /// Whether a word ends between two characters in every text in which they meet, and no word
    /// before looks further than that.
    fn parts(&self, before: char, after: char) -> bool {
        use CharacterClass::{Letter, Number, Other, Space};
        let class = |character| self.classes.of(character);
        let gpt2 = match &self.rule {
            Rule::Regex(_) => return false,
            Rule::Gpt2 => true,
            Rule::Cl100k(_) | Rule::O200k => false,
        };
        match (class(before), class(after)) {
            // A run leaves its last character to the word behind it.
            (Space, _) if gpt2 => false,
            // A contraction is the only word of two classes.
            (Other, Letter) if gpt2 => before != '\'',
            (one, other) if gpt2 => one != other,
            (Letter, Other) if matches!(self.rule, Rule::O200k) => {
                after != '\'' && !self.classes.is_mark(after)
            }
            (Letter, Space | Number | Other) | (Number, Space | Letter | Other) => true,
            (Other, Number) => true,
            // Line breaks belong to the signs before them, and end what begins with them.
            (Other, Space) => !matches!(after, '\r' | '\n'),
            (Space, Letter | Number | Other) => {
                matches!(before, '\r' | '\n') && (after != '/' || !matches!(self.rule, Rule::O200k))
            }
            _ => false,
        }
    }

    fn gpt2_end(&self, text: &str, start: usize) -> usize {
        let bytes = text.as_bytes();
        let first = bytes[start];
        if first == b'\'' {
            match bytes.get(start + 1..) {
                Some([b's' | b't' | b'm' | b'd', ..]) => return start + 2,
                Some([b'r' | b'v', b'e', ..] | [b'l', b'l', ..]) => return start + 3,
                _ => {}
            }
        }
        // One space belongs to the word behind it.
        let body = start + usize::from(first == b' ');
        match self.classes.at(text, body) {
            Some((CharacterClass::Space, _)) | None => self.space_end(text, start),
            Some((class, _)) => self.classes.run(text, body, class),
        }
    }

    /// White space: before a word, a run leaves its last character to it.
    fn space_end(&self, text: &str, start: usize) -> usize {
        let end = self.classes.run(text, start, CharacterClass::Space);
        let last = text[..end].chars().next_back().map_or(0, char::len_utf8);
        if end < text.len() && end - last > start { end - last } else { end }
    }

    fn cl100k_end(&self, text: &str, start: usize, variant: Variant) -> usize {
        let bytes = text.as_bytes();
        let Some((class, length)) = self.classes.at(text, start) else { return start };
        let next = self.classes.at(text, start + length).map(|(class, _)| class);
        match class {
            CharacterClass::Letter => {
                return self.classes.run(text, start + length, CharacterClass::Letter);
            }
            CharacterClass::Number => return self.digits_end(text, start, variant.digits),
            _ => {}
        }
        if bytes[start] == b'\''
            && let Some(length) = contraction(&text[start + 1..])
        {
            return start + 1 + length;
        }
        let line_break = matches!(bytes[start], b'\r' | b'\n');
        if next == Some(CharacterClass::Letter) && !line_break {
            return self.classes.run(text, start + length, CharacterClass::Letter);
        }
        let body = start + usize::from(bytes[start] == b' ');
        let is_other = class == CharacterClass::Other
            || (bytes[start] == b' ' && next == Some(CharacterClass::Other));
        if is_other {
            let mut end = self.classes.run(text, body, CharacterClass::Other);
            while matches!(bytes.get(end), Some(b'\r' | b'\n')) {
                end += 1;
            }
            return end;
        }
        if variant.whole_end && self.classes.run(text, start, CharacterClass::Space) == text.len() {
            return text.len();
        }
        self.lines_end(text, start)
    }

    fn o200k_end(&self, text: &str, start: usize) -> usize {
        let bytes = text.as_bytes();
        if let Some(end) = o200k::word_end(self.classes, text, start) {
            return end;
        }
        if let Some((CharacterClass::Number, _)) = self.classes.at(text, start) {
            return self.digits_end(text, start, 3);
        }
        let body = start + usize::from(bytes[start] == b' ');
        if let Some((CharacterClass::Other, _)) = self.classes.at(text, body) {
            let mut end = self.classes.run(text, body, CharacterClass::Other);
            while matches!(bytes.get(end), Some(b'\r' | b'\n' | b'/')) {
                end += 1;
            }
            return end;
        }
        self.lines_end(text, start)
    }

    /// White space that ends with its last line break, or has none.
    fn lines_end(&self, text: &str, start: usize) -> usize {
        let run = self.classes.run(text, start, CharacterClass::Space);
        let line_break = |&byte: &u8| matches!(byte, b'\r' | b'\n');
        match text.as_bytes()[start..run].iter().rposition(line_break) {
            Some(last) => start + last + 1,
            None => self.space_end(text, start),
        }
    }

    fn digits_end(&self, text: &str, start: usize, most: usize) -> usize {
        let mut end = start;
        for _ in 0..most {
            match self.classes.at(text, end) {
                Some((CharacterClass::Number, length)) => end += length,
                _ => break,
            }
        }
        end
    }
}

/// Calls `word` with the matches of an expression and with what is between them, and gives the
/// length of the text; if the engine gives up, how far it came is the error.
fn matches<'a>(
    regex: &Regex,
    text: &'a str,
    word: &mut impl FnMut(&'a [u8]),
) -> Result<usize, usize> {
    let bytes = text.as_bytes();
    let mut start = 0;
    for found in regex.find_iter(text) {
        let Ok(found) = found else { return Err(start) };
        for part in [start..found.start(), found.start()..found.end()] {
            if !part.is_empty() {
                word(&bytes[part]);
            }
        }
        start = found.end();
    }
    if start < bytes.len() {
        word(&bytes[start..]);
    }
    Ok(text.len())
}

/// Calls `word` with one word after the other; `end_of` says where the one that begins at a place
/// ends.
#[inline]
fn each<'a>(bytes: &'a [u8], mut word: impl FnMut(&'a [u8]), end_of: impl Fn(usize) -> usize) {
    let mut start = 0;
    while start < bytes.len() {
        let end = end_of(start);
        word(&bytes[start..end]);
        start = end;
    }
}

/// The length of what follows an apostrophe, if it is one of s, d, m, t, ll, ve, re in any case:
/// to the regular expression, the long s is an s.
fn contraction(text: &str) -> Option<usize> {
    match text.as_bytes() {
        [b's' | b'S' | b'd' | b'D' | b'm' | b'M' | b't' | b'T', ..] => Some(1),
        [b'l' | b'L', b'l' | b'L', ..] | [b'v' | b'V' | b'r' | b'R', b'e' | b'E', ..] => Some(2),
        _ if text.starts_with('\u{17f}') => Some(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
