//! Cuts text into the words that byte pairs are merged in.
//!
//! Duty: the same words as the regular expression of a [`Pattern`]; the common ones by hand,
//! many times faster, others by the expression itself. Text between the matches of an expression
//! is a word of its own, so that none is lost. Prohibition: no tokens.

use fancy_regex::Regex;

use super::classes::{CharacterClass, Classes};
use super::pattern::Pattern;

/// A pattern that is ready to cut.
pub(super) struct Splitter {
    rule: Rule,
    classes: &'static Classes,
}

enum Rule {
    Gpt2,
    /// The family of `cl100k`.
    Cl100k(Variant),
    /// The flag: words end where white space begins, as in the patterns above.
    Regex(Box<Regex>, bool),
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
            Pattern::O200k | Pattern::Regex(_) => {
                let regex = Regex::new(pattern.regex()).map_err(|error| error.to_string())?;
                Rule::Regex(Box::new(regex), *pattern == Pattern::O200k)
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
            Rule::Gpt2 => {
                let mut start = 0;
                while start < bytes.len() {
                    let end = self.gpt2_end(text, start);
                    word(&bytes[start..end]);
                    start = end;
                }
            }
            Rule::Cl100k(variant) => {
                let mut start = 0;
                while start < bytes.len() {
                    let end = self.cl100k_end(text, start, *variant);
                    word(&bytes[start..end]);
                    start = end;
                }
            }
            Rule::Regex(regex, _) => {
                let mut start = 0;
                for found in regex.find_iter(text) {
                    let found = found.map_err(|error| error.to_string())?;
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
            }
        }
        Ok(())
    }

    /// The last place at which a text can be cut without changing a word, whatever follows it.
    /// All patterns by name end a word where white space follows a letter or a number, and where
    /// a space follows anything else but white space; what white space matches depends on what
    /// follows only.
    pub(super) fn last_cut(&self, text: &str) -> Option<usize> {
        if matches!(self.rule, Rule::Regex(_, false)) {
            return None;
        }
        let mut characters = text.char_indices().rev().peekable();
        while let Some((at, character)) = characters.next() {
            if self.classes.of(character) != CharacterClass::Space {
                continue;
            }
            match characters.peek().map(|(_, before)| self.classes.of(*before)) {
                Some(CharacterClass::Letter | CharacterClass::Number) => return Some(at),
                Some(CharacterClass::Other) if character == ' ' => return Some(at),
                _ => {}
            }
        }
        None
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
        let run = self.classes.run(text, start, CharacterClass::Space);
        if variant.whole_end && run == text.len() {
            return run;
        }
        match bytes[start..run].iter().rposition(|&byte| matches!(byte, b'\r' | b'\n')) {
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
