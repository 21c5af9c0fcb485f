//! Long passages that stand in several places.
//!
//! Duty: of every sequence of so many bytes that texts share, byte for byte, the first occurrence
//! stays, by a suffix array over all texts (as in Lee et al., "Deduplicating Training Data Makes
//! Language Models Better"). Limits: five bytes of memory for each byte of text, and texts of at
//! most 2^30 bytes together. Prohibition: no passage crosses from one text to another.

use std::ops::Range;

use libsais::SuffixArrayConstruction;

use crate::data::error::DataError;

/// Bytes of all texts together.
const TEXT_BYTES_MAX: usize = 1 << 30;
/// Stands between texts. No character has this byte.
const BORDER: u8 = 0xff;

/// Texts that are looked through together.
#[derive(Default)]
pub(super) struct Passages {
    text: Vec<u8>,
    /// Where each text begins.
    starts: Vec<usize>,
}

impl Passages {
    /// Takes the next text.
    ///
    /// # Errors
    /// [`DataError::Config`] if it is too much.
    pub(super) fn push(&mut self, text: &str) -> Result<(), DataError> {
        if self.text.len() + text.len() >= TEXT_BYTES_MAX {
            let problem = format!(
                "expected at most {TEXT_BYTES_MAX} bytes of text, which are held in memory \
                 together; leave it out, or give less text"
            );
            return Err(DataError::Config { key: "data.dedupe.substring", problem });
        }
        self.starts.push(self.text.len());
        self.text.extend_from_slice(text.as_bytes());
        self.text.push(BORDER);
        Ok(())
    }

    /// For each text, the ranges of it that repeat `length` bytes of what stands before, in order,
    /// at the borders of characters.
    pub(super) fn repeated(&self, length: usize) -> Vec<Vec<Range<usize>>> {
        let text = self.text.as_slice();
        let mut again: Vec<u32> = Vec::new();
        if text.len() > length {
            let suffixes = SuffixArrayConstruction::for_text(text).in_owned_buffer32();
            let suffixes = suffixes.single_threaded().run();
            let suffixes = suffixes.expect("a text of this size has an array").into_vec();
            let passage = |start: i32| text.get(start as usize..start as usize + length);
            let same = |one: &i32, other: &i32| {
                passage(*one).is_some() && passage(*one) == passage(*other)
            };
            for places in suffixes.chunk_by(same).filter(|places| places.len() > 1) {
                let whole = passage(places[0]).is_some_and(|passage| !passage.contains(&BORDER));
                let first = places.iter().min().map_or(0, |&first| first as usize);
                // What overlaps with the first one is part of what stays.
                let later = places.iter().filter(|&&at| whole && at as usize >= first + length);
                again.extend(later.map(|&place| place as u32));
            }
        }
        again.sort_unstable();
        self.by_text(&again, length)
    }

    /// Passages by their places in all text as ranges of each text.
    fn by_text(&self, places: &[u32], length: usize) -> Vec<Vec<Range<usize>>> {
        let mut ranges = vec![Vec::new(); self.starts.len()];
        let mut places = places.iter().map(|&place| place as usize).peekable();
        for (number, ranges) in ranges.iter_mut().enumerate() {
            let start = self.starts[number];
            let end = self.starts.get(number + 1).copied().unwrap_or(self.text.len()) - 1;
            while let Some(place) = places.next_if(|&place| place < end) {
                let mut range = place..place + length;
                while let Some(next) = places.next_if(|&next| next <= range.end && next < end) {
                    range.end = next + length;
                }
                // No part of a character is left over, nor taken from one that stays.
                let continues = |at: usize| self.text[at] & 0xc0 == 0x80;
                while range.start < range.end && continues(range.start) {
                    range.start += 1;
                }
                while range.end < end && range.start < range.end && continues(range.end) {
                    range.end -= 1;
                }
                if !range.is_empty() {
                    ranges.push(range.start - start..range.end - start);
                }
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests;
