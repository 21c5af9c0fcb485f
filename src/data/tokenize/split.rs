//! GPT-2's splitting pattern, by hand for ASCII.
//!
//! Duty: cuts text into the same words as the regular expression
//! `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
//! (openai/gpt-2 `src/encoder.py`), many times faster. Text is first cut into [`Piece`]s
//! before white space behind a word, where the pattern always cuts too; pieces with other
//! characters than ASCII go to the regular expression. Prohibition: no Unicode tables here.

use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use super::bpe::byte_characters;

/// A part of a text that can be split without looking at the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// ASCII only: use [`ascii_words`].
    Ascii(&'a str),
    /// Anything: use the regular expression.
    Other(&'a str),
}

/// Cuts `text` into pieces, in order and without gaps.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    let mut other = false;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let end = if other { other_end(rest) } else { ascii_end(rest) };
            let (piece, after) = rest.split_at(end);
            rest = after;
            other = !other;
            // A piece of ASCII is followed by one that is not, and the other way round.
            match (piece.is_empty(), other) {
                (true, _) => {}
                (false, true) => return Some(Piece::Ascii(piece)),
                (false, false) => return Some(Piece::Other(piece)),
            }
        }
    })
}

/// The last cut before the first character that is not ASCII; the end if there is none.
fn ascii_end(text: &str) -> usize {
    match first_non_ascii(text.as_bytes()) {
        None => text.len(),
        Some(limit) => (1..limit).rev().find(|&at| is_cut(text, at)).unwrap_or(0),
    }
}

/// The first cut behind the first character that is not ASCII; the end if there is none.
fn other_end(text: &str) -> usize {
    let start = first_non_ascii(text.as_bytes()).unwrap_or(0) + 1;
    (start..text.len()).find(|&at| is_cut(text, at)).unwrap_or(text.len())
}

fn first_non_ascii(bytes: &[u8]) -> Option<usize> {
    let block = bytes.chunks(64).position(|block| !block.is_ascii())? * 64;
    bytes[block..].iter().position(|byte| !byte.is_ascii()).map(|offset| block + offset)
}

/// True if the pattern cuts before `at` whatever stands around: no word holds white space
/// behind its first character, and what white space matches depends on what follows only.
fn is_cut(text: &str, at: usize) -> bool {
    is_space(text.as_bytes()[at])
        && text[..at].chars().next_back().is_some_and(|before| !before.is_whitespace())
}

/// White space of `\s` in ASCII (`is_ascii_whitespace` lacks the vertical tab).
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Calls `word` with each word of an ASCII text, in order and without gaps.
pub(super) fn ascii_words<'a, E>(
    text: &'a str,
    mut word: impl FnMut(&'a [u8]) -> Result<(), E>,
) -> Result<(), E> {
    let bytes = text.as_bytes();
    let mut start = 0;
    while start < bytes.len() {
        let end = word_end(bytes, start);
        word(&bytes[start..end])?;
        start = end;
    }
    Ok(())
}

fn word_end(bytes: &[u8], start: usize) -> usize {
    let first = bytes[start];
    if first == b'\'' {
        match bytes.get(start + 1..) {
            Some([b's' | b't' | b'm' | b'd', ..]) => return start + 2,
            Some([b'r' | b'v', b'e', ..] | [b'l', b'l', ..]) => return start + 3,
            _ => {}
        }
    }
    let run = |from: usize, class: fn(u8) -> bool| {
        bytes[from..].iter().position(|&byte| !class(byte)).map_or(bytes.len(), |n| from + n)
    };
    // One space belongs to the word behind it.
    let body = start + usize::from(first == b' ');
    match bytes.get(body) {
        Some(byte) if byte.is_ascii_alphabetic() => run(body, |b| b.is_ascii_alphabetic()),
        Some(byte) if byte.is_ascii_digit() => run(body, |b| b.is_ascii_digit()),
        Some(&byte) if !is_space(byte) => run(body, |b| !is_space(b) && !b.is_ascii_alphanumeric()),
        _ => {
            let end = run(start, is_space);
            // Before a word, a run of white space leaves its last character to it.
            if end < bytes.len() && end - start > 1 { end - 1 } else { end }
        }
    }
}

/// The words of any text, spelled with GPT-2's characters for bytes, as the trainer counts
/// them.
pub(super) fn byte_level_words(text: &str) -> tokenizers::Result<Vec<String>> {
    let table = byte_characters();
    let mut words = Vec::with_capacity(text.len() / 4);
    for piece in pieces(text) {
        match piece {
            Piece::Ascii(text) => ascii_words(text, |word| {
                words.push(word.iter().map(|&byte| table[byte as usize]).collect());
                Ok::<(), tokenizers::Error>(())
            })?,
            Piece::Other(text) => {
                let mut split = PreTokenizedString::from(text);
                ByteLevel::new(false, true, true).pre_tokenize(&mut split)?;
                let found = split.get_splits(OffsetReferential::Original, OffsetType::Byte);
                words.extend(found.into_iter().map(|(word, _, _)| word.to_owned()));
            }
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests;
