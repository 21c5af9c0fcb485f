//! Byte pair merges, applied to one word.
//!
//! Duty: as long as a known pair stands side by side, join the one with the lowest rank, of
//! several the leftmost: the tokens that crate `tokenizers` and `tiktoken` give a word of bytes.
//! Short words are searched from end to end, long ones through a heap, and the longest piece by
//! piece: tokens are those of a text if and only if every two neighbours are those of their own
//! joint bytes, since the first merge across two neighbours would also be made between these alone.
//! So a piece may begin at a token of the piece before if the two tokens that meet there are right.
//! Limits: memory for a piece, whatever the word. Prohibition: no words are remembered here.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// Words above this go through the heap.
const SHORT_BYTES: usize = 64;
/// Bytes of a piece of a long word.
const PIECE_BYTES: usize = 64 << 10;
/// Tokens at the end of a piece that the next one looks at again, at first.
const LOOKED_AT_AGAIN: usize = 16;

const NO_RANK: u32 = u32::MAX;
const NOBODY: u32 = u32::MAX;

/// The merges of one tokenizer.
pub(super) struct Merges {
    byte_tokens: [u32; 256],
    /// Rank and result of each pair.
    pairs: HashMap<u64, (u32, u32), BuildHasherDefault<PairHasher>>,
}

/// A piece of a long word: where each token begins in the word, and where the last one ends.
struct Piece {
    tokens: Vec<(usize, u32)>,
    end: usize,
}

/// A token of a piece, with its neighbours.
struct Link {
    token: u32,
    before: u32,
    after: u32,
}

impl Merges {
    /// From the token of each byte and, for each pair, its rank and result. Of a pair that is
    /// given twice the last counts.
    pub(super) fn new(
        byte_tokens: [u32; 256],
        pairs: impl Iterator<Item = ((u32, u32), (u32, u32))>,
    ) -> Self {
        let pairs = pairs.map(|((left, right), merge)| (key(left, right), merge)).collect();
        Self { byte_tokens, pairs }
    }

    /// Appends the tokens of `word`. `scratch` is only memory.
    pub(super) fn encode(&self, word: &[u8], scratch: &mut Vec<u32>, tokens: &mut Vec<u32>) {
        if word.len() > SHORT_BYTES {
            return self.encode_long(word, PIECE_BYTES, tokens);
        }
        let first = tokens.len();
        tokens.extend(word.iter().map(|&byte| self.byte_tokens[byte as usize]));
        // The rank of each token with its right neighbour.
        scratch.clear();
        scratch.extend(tokens[first..].windows(2).map(|pair| self.rank(pair[0], pair[1])));
        while let Some(at) = lowest(scratch) {
            let left = first + at;
            // A rank stands only where the pair is known.
            let (_, result) = self.pairs[&key(tokens[left], tokens[left + 1])];
            tokens[left] = result;
            tokens.remove(left + 1);
            scratch.remove(at);
            if at > 0 {
                scratch[at - 1] = self.rank(tokens[left - 1], result);
            }
            if at < scratch.len() {
                scratch[at] = self.rank(result, tokens[left + 1]);
            }
        }
    }

    fn encode_long(&self, word: &[u8], length: usize, tokens: &mut Vec<u32>) {
        let first = tokens.len();
        let mut piece = self.encode_piece(word, 0, length);
        while piece.end < word.len() {
            let mut again = LOOKED_AT_AGAIN;
            let (kept, next) = loop {
                // The first token stays, so that it still fits to the one before it.
                let kept = piece.tokens.len().saturating_sub(again).max(1);
                let found = piece.tokens.get(kept).and_then(|&(start, token)| {
                    let next = self.encode_piece(word, start, length);
                    let same = next.tokens[0].1 == token;
                    (same || self.fit(word, piece.tokens[kept - 1].0, &next)).then_some(next)
                });
                match found {
                    Some(next) => break (kept, next),
                    None if kept > 1 => again *= 2,
                    // No token of this piece will do: pieces have to be longer.
                    None => {
                        tokens.truncate(first);
                        return self.encode_long(word, 2 * length, tokens);
                    }
                }
            };
            tokens.extend(piece.tokens[..kept].iter().map(|&(_, token)| token));
            piece = next;
        }
        tokens.extend(piece.tokens.iter().map(|&(_, token)| token));
    }

    /// Whether the token that begins at `before`, and ends where `next` begins, and the first one
    /// of `next` are the tokens of their bytes.
    fn fit(&self, word: &[u8], before: usize, next: &Piece) -> bool {
        let middle = next.tokens[0].0;
        let end = next.tokens.get(1).map_or(next.end, |&(start, _)| start);
        let pair = self.encode_piece(word, before, end - before);
        pair.tokens.len() == 2 && pair.tokens[1].0 == middle
    }

    /// The tokens of at most `length` bytes of `word` behind `start`, as if there were no others.
    fn encode_piece(&self, word: &[u8], start: usize, length: usize) -> Piece {
        let end = word.len().min(start.saturating_add(length));
        let word = &word[start..end];
        let count = word.len() as u32;
        let mut links: Vec<Link> = (0u32..)
            .zip(word)
            .map(|(at, &byte)| Link {
                token: self.byte_tokens[byte as usize],
                before: at.wrapping_sub(1),
                after: if at + 1 < count { at + 1 } else { NOBODY },
            })
            .collect();
        let mut heap = BinaryHeap::new();
        let push = |heap: &mut BinaryHeap<_>, links: &[Link], left: u32, right: u32| {
            let pair = (links[left as usize].token, links[right as usize].token);
            if let Some(&(rank, _)) = self.pairs.get(&key(pair.0, pair.1)) {
                heap.push(Reverse((rank, left, right, pair)));
            }
        };
        for left in 0..count.saturating_sub(1) {
            push(&mut heap, &links, left, left + 1);
        }
        while let Some(Reverse((_, left, right, pair))) = heap.pop() {
            let (l, r) = (left as usize, right as usize);
            // An entry is old if either side was merged since: a token that is gone is NO_RANK.
            if links[l].after != right || (links[l].token, links[r].token) != pair {
                continue;
            }
            let (_, result) = self.pairs[&key(pair.0, pair.1)];
            let after = links[r].after;
            links[r].token = NO_RANK;
            links[l].token = result;
            links[l].after = after;
            if links[l].before != NOBODY {
                push(&mut heap, &links, links[l].before, left);
            }
            if after != NOBODY {
                links[after as usize].before = left;
                push(&mut heap, &links, left, after);
            }
        }
        let mut tokens = Vec::with_capacity(word.len() / 2);
        let mut at = 0;
        while at != NOBODY {
            tokens.push((start + at as usize, links[at as usize].token));
            at = links[at as usize].after;
        }
        Piece { tokens, end }
    }

    fn rank(&self, left: u32, right: u32) -> u32 {
        self.pairs.get(&key(left, right)).map_or(NO_RANK, |&(rank, _)| rank)
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

#[cfg(test)]
mod tests;
