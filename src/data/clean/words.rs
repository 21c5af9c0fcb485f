//! The words of a text.
//!
//! Duty: text is cut at blanks, and what stands between them by the rules of Unicode (UAX #29):
//! "don't", "3.14" and "snake_case" are one word, every other sign is one of its own. ASCII has a
//! quick way of its own, which finds the same words. Prohibition: knows no language.

use unicode_segmentation::UnicodeSegmentation;

use super::signs::is_punctuation;

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

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::{unicode_words, words_of};

    fn of(text: &str) -> Vec<&str> {
        let mut words = Vec::new();
        words_of(text, &mut words);
        words.iter().map(|word| &text[word.start as usize..word.end as usize]).collect()
    }

    #[test]
    fn words_are_those_of_unicode() {
        assert_eq!(of("Don't  stop, it's 3.14!"), ["Don't", "stop", ",", "it's", "3.14", "!"]);
        assert_eq!(
            of("snake_case __ a.b 1,000;2 x.1"),
            ["snake_case", "__", "a.b", "1,000;2", "x", ".", "1"]
        );
        assert_eq!(of("caf\u{e9}\u{a0}au\tlait\u{3000}"), ["caf\u{e9}", "au", "lait"]);
        assert_eq!(of("漢字と"), ["漢", "字", "と"]);
        assert_eq!(of("a:b 1:2"), ["a:b", "1", ":", "2"]);
        assert_eq!(of(" \n"), [""; 0]);
    }

    #[test]
    fn letters_and_signs_are_known() {
        let mut words = Vec::new();
        words_of("a1 22 ... _ é —", &mut words);
        let known: Vec<_> = words.iter().map(|word| (word.letters, word.signs)).collect();
        let (word, number, sign) = ((true, false), (false, false), (false, true));
        assert_eq!(known, [word, number, sign, sign, sign, sign, word, sign]);
    }

    proptest! {
        #[test]
        fn the_quick_way_finds_the_same_words(text in "[a-c0-2_.,;:'\"() \n-]{0,24}") {
            let mut quick = Vec::new();
            words_of(&text, &mut quick);
            let mut slow = Vec::new();
            for run in text.split_ascii_whitespace() {
                let first = run.as_ptr() as usize - text.as_ptr() as usize;
                unicode_words(run, first, &mut slow);
            }
            prop_assert_eq!(quick, slow);
        }

        #[test]
        fn words_lie_in_order_inside_the_text(text in "\\PC{0,40}") {
            let mut words = Vec::new();
            words_of(&text, &mut words);
            let mut end = 0;
            for word in words {
                assert!(word.start >= end && word.end > word.start);
                assert!(text.get(word.start as usize..word.end as usize).is_some());
                end = word.end;
            }
        }
    }
}
