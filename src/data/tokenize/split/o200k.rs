//! The words of `o200k` by hand.
//!
//! Duty: a word of letters and marks is an upper-case half and a lower-case half, with one
//! character before it and a contraction behind it; the expression tries both halves with the
//! character before, then without. Numbers, signs and white space are the family's.
//! Prohibition: scans no character more than three times.

use super::super::classes::{CharacterClass, Classes, LOWER, UPPER, class};
use super::contraction;

/// Where the word of letters that begins at `start` ends, if one does.
pub(super) fn word_end(classes: &Classes, text: &str, start: usize) -> Option<usize> {
    let (bits, length) = classes.bits_at(text, start)?;
    // One character that is no letter, number or line break may stand before.
    let before = matches!(class(bits), CharacterClass::Other | CharacterClass::Space)
        && !matches!(text.as_bytes()[start], b'\r' | b'\n');
    let with = if before { letters_end(classes, text, start + length) } else { None };
    let end = match with {
        Some((end, true)) => end,
        _ => match (letters_end(classes, text, start), with) {
            (Some((end, true)), _) | (_, Some((end, _))) | (Some((end, _)), None) => end,
            (None, None) => return None,
        },
    };
    match text[end..].strip_prefix('\'').and_then(contraction) {
        Some(length) => Some(end + 1 + length),
        None => Some(end),
    }
}

/// Where the two halves that begin at `from` end, and whether the second one has a character:
/// the expression wants that first, and then does with the first half alone.
fn letters_end(classes: &Classes, text: &str, from: usize) -> Option<(usize, bool)> {
    let upper = classes.run_of(text, from, UPPER, UPPER);
    let lower = classes.run_of(text, upper, LOWER, LOWER);
    if lower > upper {
        return Some((lower, true));
    }
    // The first half gives back what the second one needs: its last character that fits there.
    let mut end = upper;
    for character in text[from..upper].chars().rev() {
        let start = end - character.len_utf8();
        let (bits, _) = classes.bits_at(text, start)?;
        if bits & LOWER != 0 {
            return Some((end, true));
        }
        end = start;
    }
    (upper > from).then_some((upper, false))
}
