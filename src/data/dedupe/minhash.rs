//! MinHash: a signature in which two texts agree as often as their word sequences do.
//!
//! Duty: the smallest value of every hash function over a text's shingles, and the keys of its
//! bands: texts with one equal key are taken for near duplicates. With b bands of r values, texts
//! of Jaccard similarity s share one with probability 1 - (1 - s^r)^b. Source: Broder, "On the
//! resemblance and containment of documents"; bands as in Leskovec, Rajaraman, Ullman, "Mining of
//! Massive Datasets" 3.4. Prohibition: compares nothing.

use super::words::{hash_words, mixed, shingles};

/// Hash functions that are computed side by side.
const BLOCK: usize = 16;

/// How near duplicates are found. The defaults are those of FineWeb: 14 bands of 8, five words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MinHashConfig {
    /// Words of a shingle.
    pub(super) words: usize,
    /// Bands.
    pub(super) bands: usize,
    /// Values of a band.
    pub(super) rows: usize,
    /// Chooses the hash functions.
    pub(super) seed: u64,
}

impl Default for MinHashConfig {
    fn default() -> Self {
        Self { words: 5, bands: 14, rows: 8, seed: 1 }
    }
}

/// Hash functions, ready to work.
pub(super) struct MinHash {
    config: MinHashConfig,
    functions: Vec<Functions>,
}

/// Some functions of the two halves of a shingle's hash: high * one + low * other, modulo 2^32.
/// With one factor only, functions whose factors have a simple ratio would agree too often.
#[derive(Clone)]
struct Functions {
    high: [u32; BLOCK],
    low: [u32; BLOCK],
}

/// What one thread keeps while it works.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) words: Vec<u64>,
    shingles: Vec<[u32; 2]>,
    smallest: Vec<[u32; BLOCK]>,
}

impl MinHash {
    pub(super) fn new(config: MinHashConfig) -> Self {
        let mut state = config.seed;
        let mut random = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mixed(state)
        };
        let block = |_| {
            let high = std::array::from_fn(|_| random() as u32 | 1);
            let low = std::array::from_fn(|_| random() as u32 | 1);
            Functions { high, low }
        };
        let blocks = (config.bands * config.rows).div_ceil(BLOCK);
        Self { config, functions: (0..blocks).map(block).collect() }
    }

    /// Puts the keys of a text's bands into `keys`: none if it has fewer words than a shingle.
    pub(super) fn keys(&self, text: &str, scratch: &mut Scratch, keys: &mut Vec<u64>) {
        keys.clear();
        hash_words(text, &mut scratch.words);
        let Scratch { words, shingles: found, smallest } = scratch;
        found.clear();
        shingles(words, self.config.words, |hash| found.push([(hash >> 32) as u32, hash as u32]));
        if found.is_empty() {
            return;
        }
        smallest.clear();
        smallest.resize(self.functions.len(), [u32::MAX; BLOCK]);
        for (functions, smallest) in self.functions.iter().zip(&mut *smallest) {
            lower(functions, found, smallest);
        }
        let values = smallest.as_flattened();
        for (band, values) in (1u64..).zip(values.chunks(self.config.rows)).take(self.config.bands)
        {
            let key = values.iter().fold(mixed(band), |key, &value| mixed(key ^ u64::from(value)));
            keys.push(key);
        }
    }
}

/// Lowers each of `smallest` to what its function gives for any of the shingles.
fn lower(functions: &Functions, shingles: &[[u32; 2]], smallest: &mut [u32; BLOCK]) {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has what the function was compiled for.
            return unsafe { lower_avx512(functions, shingles, smallest) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { lower_avx2(functions, shingles, smallest) };
        }
    }
    lower_any(functions, shingles, smallest);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn lower_avx512(functions: &Functions, shingles: &[[u32; 2]], smallest: &mut [u32; BLOCK]) {
    lower_any(functions, shingles, smallest);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn lower_avx2(functions: &Functions, shingles: &[[u32; 2]], smallest: &mut [u32; BLOCK]) {
    lower_any(functions, shingles, smallest);
}

#[inline(always)]
fn lower_any(functions: &Functions, shingles: &[[u32; 2]], smallest: &mut [u32; BLOCK]) {
    let Functions { high, low } = functions.clone();
    let mut lowest = *smallest;
    for &[one, other] in shingles {
        for i in 0..BLOCK {
            let value = one.wrapping_mul(high[i]).wrapping_add(other.wrapping_mul(low[i]));
            lowest[i] = lowest[i].min(value);
        }
    }
    *smallest = lowest;
}

#[cfg(test)]
mod tests;
