//! Byte pair merges, applied to one word.
//!
//! Duty: the same tokens as crate `tokenizers` gives a word of bytes: as long as a known pair
//! stands side by side, join the one with the lowest rank, of several the leftmost. Limits:
//! quadratic in the word's length, so long words are left to the crate. Prohibition: no words
//! are remembered here.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use serde::Deserialize;

use super::bpe::byte_characters;

/// Words above this go to the crate, which uses a heap.
pub(super) const WORD_BYTES_MAX: usize = 128;

const NO_RANK: u32 = u32::MAX;

/// The merges of one tokenizer.
pub(super) struct Merges {
    byte_tokens: [u32; 256],
    /// Rank and result of each pair.
    pairs: HashMap<u64, (u32, u32), BuildHasherDefault<PairHasher>>,
}

#[derive(Deserialize)]
struct File {
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<String, u32>,
    merges: Vec<Pair>,
    #[serde(default)]
    ignore_merges: bool,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
}

/// A merge as it is written today, or as it was before `tokenizers` 0.20.
#[derive(Deserialize)]
#[serde(untagged)]
enum Pair {
    Two(String, String),
    Spaced(String),
}

impl Merges {
    /// The merges of a `tokenizer.json`, if they are plain byte pair merges over all 256 bytes.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        let File { model } = serde_json::from_slice(json).ok()?;
        let affixes = [&model.continuing_subword_prefix, &model.end_of_word_suffix];
        if model.ignore_merges || affixes.into_iter().flatten().any(|affix| !affix.is_empty()) {
            return None;
        }
        let mut byte_tokens = [0; 256];
        let mut spelled = [0; 4];
        for (token, character) in byte_tokens.iter_mut().zip(byte_characters()) {
            *token = *model.vocab.get(character.encode_utf8(&mut spelled) as &str)?;
        }
        let mut pairs = HashMap::default();
        for (rank, pair) in (0u32..).zip(&model.merges) {
            let (left, right) = match pair {
                Pair::Two(left, right) => (left.as_str(), right.as_str()),
                Pair::Spaced(both) => both.split_once(' ')?,
            };
            let result = *model.vocab.get(&format!("{left}{right}"))?;
            let (left, right) = (*model.vocab.get(left)?, *model.vocab.get(right)?);
            pairs.insert(key(left, right), (rank, result));
        }
        Some(Self { byte_tokens, pairs })
    }

    /// Appends the tokens of `word`. `scratch` is only memory.
    pub(super) fn encode(&self, word: &[u8], scratch: &mut Vec<u32>, tokens: &mut Vec<u32>) {
        let first = tokens.len();
        tokens.extend(word.iter().map(|&byte| self.byte_tokens[byte as usize]));
        // The rank of each token with its right neighbour.
        scratch.clear();
        scratch.extend(tokens[first..].windows(2).map(|pair| self.rank(pair)));
        while let Some(at) = lowest(scratch) {
            let left = first + at;
            // A rank stands only where the pair is known.
            let (_, result) = self.pairs[&key(tokens[left], tokens[left + 1])];
            tokens[left] = result;
            tokens.remove(left + 1);
            scratch.remove(at);
            if at > 0 {
                scratch[at - 1] = self.rank(&tokens[left - 1..=left]);
            }
            if at < scratch.len() {
                scratch[at] = self.rank(&tokens[left..=left + 1]);
            }
        }
    }

    fn rank(&self, pair: &[u32]) -> u32 {
        self.pairs.get(&key(pair[0], pair[1])).map_or(NO_RANK, |&(rank, _)| rank)
    }
}

/// The leftmost lowest rank, if there is any.
fn lowest(ranks: &[u32]) -> Option<usize> {
    let rank = ranks.iter().copied().min().filter(|&rank| rank != NO_RANK)?;
    ranks.iter().position(|&one| one == rank)
}

fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// Hashes one u64, which is all that a pair is.
#[derive(Default)]
struct PairHasher(u64);

impl Hasher for PairHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u64(&mut self, pair: u64) {
        let mixed = (self.0 ^ pair).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn finish(&self) -> u64 {
        // The table uses the highest and the lowest bits.
        self.0.wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(32)
    }
}
