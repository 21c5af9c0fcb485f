//! A memory of the tokens of short words.
//!
//! Duty: a direct-mapped table from words of up to 31 bytes to up to 7 tokens, one cache line
//! each; what does not fit is simply not remembered. Text repeats its words, so nearly all of
//! them are found here. Limits: 65,536 words, 4 MiB. Prohibition: no allocation after `new`.

const SLOTS_LOG2: u32 = 16;
const WORD_BYTES: usize = 31;
const TOKENS: usize = 7;

pub(super) struct WordCache {
    slots: Box<[Slot]>,
}

#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Slot {
    key: Key,
    tokens: [u32; TOKENS],
    count: u32,
}

/// A word that can be remembered: its bytes, zeros, and in the last byte its length. The
/// default, of length 0, is no word.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Key([u64; 4]);

impl Key {
    /// The key of a word that is short enough and not empty.
    pub(super) fn new(word: &[u8]) -> Option<Self> {
        if word.is_empty() || word.len() > WORD_BYTES {
            return None;
        }
        let mut bytes = [0; WORD_BYTES + 1];
        bytes[..word.len()].copy_from_slice(word);
        bytes[WORD_BYTES] = word.len() as u8;
        let mut key = [0; 4];
        for (part, bytes) in key.iter_mut().zip(bytes.as_chunks().0) {
            *part = u64::from_le_bytes(*bytes);
        }
        Some(Self(key))
    }

    fn slot(self) -> usize {
        // Multiplicative hashing: the high bits of a product depend on all bits below.
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = self
            .0
            .iter()
            .fold(0u64, |mixed, part| (mixed.rotate_left(29) ^ part).wrapping_mul(ODD));
        (mixed >> (u64::BITS - SLOTS_LOG2)) as usize
    }
}

impl WordCache {
    pub(super) fn new() -> Self {
        Self { slots: vec![Slot::default(); 1 << SLOTS_LOG2].into_boxed_slice() }
    }

    /// The tokens of a word, if remembered.
    pub(super) fn get(&self, key: Key) -> Option<&[u32]> {
        let slot = &self.slots[key.slot()];
        (slot.key == key).then(|| &slot.tokens[..slot.count as usize])
    }

    /// Remembers a word in place of whatever was in its slot.
    pub(super) fn put(&mut self, key: Key, tokens: &[u32]) {
        if tokens.len() <= TOKENS {
            let slot = &mut self.slots[key.slot()];
            slot.key = key;
            slot.count = tokens.len() as u32;
            slot.tokens[..tokens.len()].copy_from_slice(tokens);
        }
    }
}
