//! A text as the words that duplicates are found by.
//!
//! Duty: what differs between copies of a text is left out: case, accents, punctuation, white
//! space, and the digits of numbers, as in the published recipes. A word is a run of letters,
//! marks and digits; in scripts that are written without spaces every character is one.
//! Prohibition: words are hashed at once, none is kept.

use std::sync::OnceLock;

use regex_syntax::hir::{Class, HirKind};
use unicode_normalization::char::decompose_canonical;

/// Multiplier of the hash: the golden ratio's.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
/// What a number is spelled with, whatever its digits.
const ZERO: u32 = b'0' as u32;

/// Not of a word.
const SEPARATOR: u32 = 0;
/// Left out, without ending a word.
const NOTHING: u32 = 1;
/// A digit.
const DIGIT: u32 = 2;
/// A character that is a word of its own has this bit.
const ALONE: u32 = 1 << 31;

/// What becomes of each code point: one of the above, or the character it counts as.
struct Folding(Box<[u32]>);

impl Folding {
    fn get() -> &'static Self {
        static FOLDING: OnceLock<Folding> = OnceLock::new();
        FOLDING.get_or_init(|| {
            let mut table = vec![SEPARATOR; char::MAX as usize + 1].into_boxed_slice();
            for_each_of(r"[\p{L}\p{N}]", &mut |character| {
                let mut first = character;
                decompose_canonical(first, |part| {
                    first = if first == character { part } else { first };
                });
                let lower = first.to_lowercase().next().unwrap_or(first);
                table[character as usize] = lower as u32;
            });
            for_each_of(
                r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}&&\p{L}]",
                &mut |character| table[character as usize] |= ALONE,
            );
            for_each_of(r"\p{M}", &mut |character| table[character as usize] = NOTHING);
            for_each_of(r"\p{Nd}", &mut |character| table[character as usize] = DIGIT);
            Self(table)
        })
    }
}

fn for_each_of(pattern: &str, take: &mut dyn FnMut(char)) {
    let parsed = regex_syntax::parse(pattern).expect("a class is a valid pattern");
    let HirKind::Class(Class::Unicode(found)) = parsed.into_kind() else {
        panic!("{pattern} is not a class of characters")
    };
    found.iter().for_each(|range| (range.start()..=range.end()).for_each(&mut *take));
}

/// Puts the hash of every word of `text` into `words`.
pub(super) fn hash_words(text: &str, words: &mut Vec<u64>) {
    words.clear();
    let Folding(table) = Folding::get();
    let bytes = text.as_bytes();
    let (mut at, mut hash) = (0, 0u64);
    let step = |hash: u64, one: u32| (hash.rotate_left(5) ^ u64::from(one)).wrapping_mul(ODD);
    while let Some(&byte) = bytes.get(at) {
        if byte >= 0x80 {
            let character = text[at..].chars().next().unwrap_or_default();
            at += character.len_utf8();
            match table[character as usize] {
                NOTHING => {}
                SEPARATOR => end(&mut hash, words),
                DIGIT => {
                    hash = step(hash, ZERO);
                    at = digits_end(table, text, at);
                }
                one if one & ALONE != 0 => {
                    end(&mut hash, words);
                    words.push(step(0, one));
                }
                one => hash = step(hash, one),
            }
            continue;
        }
        at += 1;
        match table[byte as usize] {
            SEPARATOR => end(&mut hash, words),
            DIGIT => {
                hash = step(hash, ZERO);
                at = digits_end(table, text, at);
            }
            one => hash = step(hash, one),
        }
    }
    end(&mut hash, words);
}

/// Ends a word, if one has begun.
#[inline]
fn end(hash: &mut u64, words: &mut Vec<u64>) {
    if *hash != 0 {
        words.push(*hash);
        *hash = 0;
    }
}

/// Where a number ends that has a digit before `at`: 3 and 3.14 are one each.
fn digits_end(table: &[u32], text: &str, at: usize) -> usize {
    let run = |from: usize| {
        let digit = |character: char| table[character as usize] == DIGIT;
        text[from..].chars().take_while(|&one| digit(one)).fold(from, |at, one| at + one.len_utf8())
    };
    let whole = run(at);
    let fraction = if text.as_bytes().get(whole) == Some(&b'.') { run(whole + 1) } else { whole };
    if fraction > whole + 1 { fraction } else { whole }
}

/// The hashes of every `length` words that follow each other, by which two texts share them.
pub(super) fn shingles(words: &[u64], length: usize, mut take: impl FnMut(u64)) {
    let Some((first, rest)) = words.split_at_checked(length) else { return };
    // A polynomial in the hashes of the words: the oldest one is taken away again.
    let oldest = (0..length).fold(1u64, |power, _| power.wrapping_mul(ODD));
    let mut sum = first.iter().fold(0u64, |sum, &word| sum.wrapping_mul(ODD).wrapping_add(word));
    take(mixed(sum));
    for (&new, &old) in rest.iter().zip(words) {
        sum = sum.wrapping_mul(ODD).wrapping_add(new).wrapping_sub(old.wrapping_mul(oldest));
        take(mixed(sum));
    }
}

/// Every bit of the result depends on every bit of `value`.
#[inline]
pub(super) fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let value = (value ^ (value >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}

#[cfg(test)]
mod tests;
