//! The classes of characters that splitting patterns ask for.
//!
//! Duty: letter (`\p{L}`), number (`\p{N}`), white space (`\s`) or none of them, for every code
//! point, from the same tables as the regular expressions. Limits: 1.1 MB, made once.

use std::sync::OnceLock;

use regex_syntax::hir::{Class, HirKind};

/// What a character is to a splitting pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum CharacterClass {
    /// Punctuation, marks, symbols, control characters.
    Other,
    /// `\p{L}`.
    Letter,
    /// `\p{N}`.
    Number,
    /// `\s`.
    Space,
}

/// The class of every code point.
pub(super) struct Classes(Box<[CharacterClass]>);

impl Classes {
    /// The one table.
    pub(super) fn get() -> &'static Self {
        static CLASSES: OnceLock<Classes> = OnceLock::new();
        CLASSES.get_or_init(|| {
            let mut table = vec![CharacterClass::Other; char::MAX as usize + 1].into_boxed_slice();
            for (pattern, class) in [
                (r"\p{L}", CharacterClass::Letter),
                (r"\p{N}", CharacterClass::Number),
                (r"\s", CharacterClass::Space),
            ] {
                let parsed = regex_syntax::parse(pattern).expect("a class is a valid pattern");
                let HirKind::Class(Class::Unicode(found)) = parsed.into_kind() else {
                    panic!("{pattern} is not a class of characters")
                };
                for range in found.iter() {
                    table[range.start() as usize..=range.end() as usize].fill(class);
                }
            }
            Self(table)
        })
    }

    pub(super) fn of(&self, character: char) -> CharacterClass {
        self.0[character as usize]
    }

    /// The class of the character that begins at byte `at`, and its length; `None` at the end.
    #[inline]
    pub(super) fn at(&self, text: &str, at: usize) -> Option<(CharacterClass, usize)> {
        let byte = *text.as_bytes().get(at)?;
        if byte < 0x80 {
            return Some((self.0[byte as usize], 1));
        }
        let character = text[at..].chars().next()?;
        Some((self.of(character), character.len_utf8()))
    }

    /// Where the run of `class` that covers `from` ends; at `from` if there is none.
    #[inline]
    pub(super) fn run(&self, text: &str, from: usize, class: CharacterClass) -> usize {
        let bytes = text.as_bytes();
        let mut at = from;
        loop {
            while at < bytes.len() && bytes[at] < 0x80 && self.0[bytes[at] as usize] == class {
                at += 1;
            }
            match self.at(text, at) {
                Some((found, length)) if length > 1 && found == class => at += length,
                _ => return at,
            }
        }
    }
}
