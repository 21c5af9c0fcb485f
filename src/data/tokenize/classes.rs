//! The classes of characters that splitting patterns ask for.
//!
//! Duty: letter (`\p{L}`), number (`\p{N}`), white space (`\s`) or none of them, and which of the
//! two halves of a word it may stand in, for every code point, from the same tables as the regular
//! expressions. Limits: 1.1 MB, made once.

use std::sync::OnceLock;

use regex_syntax::hir::{Class, HirKind};

/// What a character is to a splitting pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// May stand in the first half of a word of `o200k`: `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`.
pub(super) const UPPER: u8 = 4;
/// May stand in the second half: `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`.
pub(super) const LOWER: u8 = 8;

/// Class and halves of every code point: the class in the two lowest bits.
pub(super) struct Classes(Box<[u8]>);

impl Classes {
    /// The one table.
    pub(super) fn get() -> &'static Self {
        static CLASSES: OnceLock<Classes> = OnceLock::new();
        CLASSES.get_or_init(|| {
            let mut table = vec![0; char::MAX as usize + 1].into_boxed_slice();
            for (pattern, bits) in [
                (r"\p{L}", CharacterClass::Letter as u8),
                (r"\p{N}", CharacterClass::Number as u8),
                (r"\s", CharacterClass::Space as u8),
                (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", UPPER),
                (r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", LOWER),
            ] {
                let parsed = regex_syntax::parse(pattern).expect("a class is a valid pattern");
                let HirKind::Class(Class::Unicode(found)) = parsed.into_kind() else {
                    panic!("{pattern} is not a class of characters")
                };
                for range in found.iter() {
                    let range = range.start() as usize..=range.end() as usize;
                    table[range].iter_mut().for_each(|one| *one |= bits);
                }
            }
            Self(table)
        })
    }

    pub(super) fn of(&self, character: char) -> CharacterClass {
        class(self.0[character as usize])
    }

    /// Whether a character is a mark (`\p{M}`), which is no letter but stands in words.
    pub(super) fn is_mark(&self, character: char) -> bool {
        let bits = self.0[character as usize];
        bits & UPPER != 0 && class(bits) == CharacterClass::Other
    }

    /// Class and halves of the character that begins at byte `at`, and its length; `None` at the
    /// end.
    #[inline]
    pub(super) fn bits_at(&self, text: &str, at: usize) -> Option<(u8, usize)> {
        let byte = *text.as_bytes().get(at)?;
        if byte < 0x80 {
            return Some((self.0[byte as usize], 1));
        }
        let character = text[at..].chars().next()?;
        Some((self.0[character as usize], character.len_utf8()))
    }

    /// The class of the character that begins at byte `at`, and its length; `None` at the end.
    #[inline]
    pub(super) fn at(&self, text: &str, at: usize) -> Option<(CharacterClass, usize)> {
        self.bits_at(text, at).map(|(bits, length)| (class(bits), length))
    }

    /// Where the run of `class` that covers `from` ends; at `from` if there is none.
    #[inline]
    pub(super) fn run(&self, text: &str, from: usize, class: CharacterClass) -> usize {
        self.run_of(text, from, CLASS, class as u8)
    }

    /// Where the run of characters whose bits under `mask` are `wanted` ends.
    #[inline]
    pub(super) fn run_of(&self, text: &str, from: usize, mask: u8, wanted: u8) -> usize {
        let bytes = text.as_bytes();
        let mut at = from;
        loop {
            while at < bytes.len()
                && bytes[at] < 0x80
                && self.0[bytes[at] as usize] & mask == wanted
            {
                at += 1;
            }
            match self.bits_at(text, at) {
                Some((found, length)) if length > 1 && found & mask == wanted => at += length,
                _ => return at,
            }
        }
    }
}

/// The bits of the class.
const CLASS: u8 = 3;

/// The class that some bits say.
#[inline]
pub(super) fn class(bits: u8) -> CharacterClass {
    match bits & CLASS {
        1 => CharacterClass::Letter,
        2 => CharacterClass::Number,
        3 => CharacterClass::Space,
        _ => CharacterClass::Other,
    }
}
