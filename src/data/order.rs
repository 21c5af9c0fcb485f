//! Which window of the token stream is sample number i.
//!
//! Duty: a pure function of (seed, data identity, i), so that any rank can compute any sample
//! and a resume needs one number. A window is T tokens and the label of the last one.
//! An epoch visits every window once, in an order drawn for that epoch, and shifts all windows
//! by an offset drawn for it, so that their borders move and every token is used sooner or later.
//! Prohibition: no state, no table of the order, no dependence on ranks or batch size.

use super::error::DataError;

/// How windows follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// Training: a new order and a new offset in each epoch.
    Shuffled,
    /// Evaluation: window j begins at token j·T, and the last one ends with the tokens; then again.
    Sequential,
}

/// The order of samples of one token stream.
#[derive(Clone, Debug)]
pub struct SampleOrder {
    windows: Windows,
    key: u64,
    per_epoch: u64,
    /// Largest offset of the first window of an epoch.
    slack: u64,
    sequence_length: u64,
}

impl SampleOrder {
    /// The order of windows of `sequence_length` tokens in a stream of `tokens`.
    ///
    /// # Errors
    /// [`DataError::TooShort`] if not even one window and its last label fit, or for evaluation not
    /// even one token and its label.
    ///
    /// # Panics
    /// If `sequence_length` is 0.
    pub fn new(
        seed: u64,
        identity: &str,
        tokens: u64,
        sequence_length: usize,
        windows: Windows,
    ) -> Result<Self, DataError> {
        assert!(sequence_length > 0, "a window has at least one token");
        let length = sequence_length as u64;
        let least = if windows == Windows::Sequential { 1 } else { sequence_length };
        if tokens < (least as u64).saturating_add(1) {
            return Err(DataError::too_short(tokens, least));
        }
        let (per_epoch, slack) = match windows {
            Windows::Sequential => ((tokens - 1).div_ceil(length), 0),
            // One window less leaves room to shift the others by a whole window.
            Windows::Shuffled => {
                let per_epoch = ((tokens - 1) / length - 1).max(1);
                (per_epoch, tokens - 1 - per_epoch * length)
            }
        };
        let key = key(seed, identity);
        Ok(Self { windows, key, per_epoch, slack, sequence_length: length })
    }

    /// The order of windows that are numbered, not cut from a stream: [`Self::start`] gives
    /// numbers.
    ///
    /// # Panics
    /// Without windows.
    pub fn of_windows(seed: u64, identity: &str, count: u64, windows: Windows) -> Self {
        assert!(count > 0, "there is at least one window");
        let key = key(seed, identity);
        Self { windows, key, per_epoch: count, slack: 0, sequence_length: 1 }
    }

    /// Windows per epoch.
    pub fn windows_per_epoch(&self) -> u64 {
        self.per_epoch
    }

    /// The epoch that sample number `sample` belongs to, from 0.
    pub fn epoch(&self, sample: u64) -> u64 {
        sample / self.per_epoch
    }

    /// The first token of sample number `sample`. Samples never end.
    pub fn start(&self, sample: u64) -> u64 {
        let (epoch, place) = (sample / self.per_epoch, sample % self.per_epoch);
        match self.windows {
            Windows::Sequential => place * self.sequence_length,
            Windows::Shuffled => {
                let key = mix(self.key ^ mix(epoch));
                let offset = below(mix(!key), self.slack + 1);
                offset + permute(place, self.per_epoch, key) * self.sequence_length
            }
        }
    }
}

fn key(seed: u64, identity: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"octet sample order 1");
    hasher.update(&seed.to_le_bytes());
    hasher.update(identity.as_bytes());
    let mut key = [0; 8];
    hasher.finalize_xof().fill(&mut key);
    u64::from_le_bytes(key)
}

/// Rounds of the Feistel network: four make a pseudo-random permutation of good round
/// functions, two more are for small domains.
const ROUNDS: u64 = 6;

/// Where `index` goes in a pseudo-random permutation of `0..length` chosen by `key`: a balanced
/// Feistel network over the next even number of bits, walked until it lands inside (cycle
/// walking; Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
fn permute(index: u64, length: u64, key: u64) -> u64 {
    debug_assert!(index < length);
    let bits = u64::BITS - (length - 1).leading_zeros();
    let half = bits.div_ceil(2).max(1);
    let mask = (1u64 << half) - 1;
    let mut at = index;
    loop {
        let (mut left, mut right) = (at >> half, at & mask);
        for round in 0..ROUNDS {
            let mixed = mix(right ^ mix(key.wrapping_add(round)));
            // The high bits of the mixer are its best.
            (left, right) = (right, left ^ (mixed >> (u64::BITS - half)));
        }
        at = left << half | right;
        if at < length {
            return at;
        }
    }
}

/// A number below `bound` from 64 random bits; the bias is below bound / 2^64.
fn below(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

/// A bijective 64-bit mixer: the output function of SplitMix64 (Steele, Lea, Flood, "Fast
/// splittable pseudorandom number generators", 2014), increment included.
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
