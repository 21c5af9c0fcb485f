//! The words of a text.
//!
//! Duty: text is cut at blanks, and what stands between them by the rules of Unicode (UAX #29):
//! "don't", "3.14" and "snake_case" are one word, every other sign is one of its own. ASCII has a
//! quick way of its own, which finds the same words. Prohibition: knows no language.

use unicode_segmentation::UnicodeSegmentation;

use super::signs::is_punctuation;

#[cfg(test)]
mod tests;

/// A word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// Where it begins in the text, in bytes.
    pub start: u32,
    /// Where it ends.
    pub end: u32,
    /// Its characters (Unicode scalar values).
    pub characters: u32,
    /// Whether one of them is a letter.
    pub letters: bool,
    /// Whether all of them are signs of punctuation or controls.
    pub signs: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Digit,
    /// Joins letters, digits and itself.
    Underscore,
    /// `'` and `.`: join letters, and join digits.
    Between,
    /// `:`: joins letters.
    BetweenLetters,
    /// `,` and `;`: join digits.
    BetweenDigits,
    Sign,
}

const CLASSES: [Class; 128] = {
    let mut classes = [Class::Sign; 128];
    let mut byte = 0;
    while byte < 128 {
        classes[byte as usize] = match byte {
            b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
            b'0'..=b'9' => Class::Digit,
            b'_' => Class::Underscore,
            b'\'' | b'.' => Class::Between,
            b':' => Class::BetweenLetters,
            b',' | b';' => Class::BetweenDigits,
            _ => Class::Sign,
        };
        byte += 1;
    }
    classes
};

/// Finds the words of a text, in order.
pub(super) fn words_of(text: &str, words: &mut Vec<Word>) {
    words.clear();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at].is_ascii_whitespace() || bytes[at] == 0x0b {
            at += 1;
            continue;
        }
        let start = at;
        let mut ascii = true;
        while at < bytes.len() && !(bytes[at].is_ascii_whitespace() || bytes[at] == 0x0b) {
            ascii &= bytes[at].is_ascii();
            at += 1;
        }
        match ascii {
            true => ascii_words(&bytes[start..at], start, words),
            false => unicode_words(&text[start..at], start, words),
        }
    }
}

fn ascii_words(run: &[u8], first: usize, words: &mut Vec<Word>) {
    let class = |at: usize| run.get(at).map_or(Class::Sign, |&byte| CLASSES[byte as usize]);
    let mut at = 0;
    while at < run.len() {
        let start = at;
        let (mut letters, mut only_underscores) = (false, true);
        let mut last = class(at);
        at += 1;
        if matches!(last, Class::Letter | Class::Digit | Class::Underscore) {
            loop {
                letters |= last == Class::Letter;
                only_underscores &= last == Class::Underscore;
                match (last, class(at)) {
                    (_, next @ (Class::Letter | Class::Digit | Class::Underscore)) => {
                        last = next;
                        at += 1;
                    }
                    (Class::Letter, Class::Between | Class::BetweenLetters)
                        if class(at + 1) == Class::Letter =>
                    {
                        at += 1
                    }
                    (Class::Digit, Class::Between | Class::BetweenDigits)
                        if class(at + 1) == Class::Digit =>
                    {
                        at += 1;
                    }
                    _ => break,
                }
            }
        }
        words.push(Word {
            start: (first + start) as u32,
            end: (first + at) as u32,
            characters: (at - start) as u32,
            letters,
            signs: only_underscores,
        });
    }
}

fn unicode_words(run: &str, first: usize, words: &mut Vec<Word>) {
    for (start, word) in run.split_word_bound_indices() {
        let mut found = Word {
            start: (first + start) as u32,
            end: (first + start + word.len()) as u32,
            characters: 0,
            letters: false,
            signs: true,
        };
        let mut blank = true;
        for character in word.chars() {
            found.characters += 1;
            found.letters |= character.is_alphabetic();
            found.signs &= is_punctuation(character);
            blank &= character.is_whitespace();
        }
        if !blank {
            words.push(found);
        }
    }
}
