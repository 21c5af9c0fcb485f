//! A set of hashes that is filled and emptied for every document.
//!
//! Duty: which of a document's lines or n-grams occurred before, and how often. Two that have the
//! same 64-bit hash count as the same. Prohibition: keeps nothing between documents.

#[cfg(test)]
mod tests;

/// Hashes that were seen, in open addressing.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// 0 is an empty place.
    keys: Vec<u64>,
    counts: Vec<u32>,
    shift: u32,
}

/// The n-gram that occurs most often, the first of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Top {
    /// How often.
    pub count: u32,
    /// Where it occurred first.
    pub first: usize,
}

impl Table {
    /// Empties it, with room for so many.
    pub(super) fn clear(&mut self, most: usize) {
        let places = (most.max(8) * 2).next_power_of_two();
        self.keys.clear();
        self.keys.resize(places, 0);
        self.shift = 64 - places.trailing_zeros();
    }

    /// The place of a hash, and whether it is there already.
    fn place(&self, key: u64) -> (usize, bool) {
        let mask = self.keys.len() - 1;
        let mut at = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize;
        loop {
            match self.keys[at] {
                0 => return (at, false),
                there if there == key => return (at, true),
                _ => at = (at + 1) & mask,
            }
        }
    }

    /// Puts a hash in; whether it was not there.
    pub(super) fn insert(&mut self, hash: u64) -> bool {
        let key = hash.max(1);
        let (at, there) = self.place(key);
        self.keys[at] = key;
        !there
    }

    /// Counts every hash; which occurs most often, the earliest if there are several.
    pub(super) fn top(&mut self, hashes: impl ExactSizeIterator<Item = u64> + Clone) -> Top {
        self.clear(hashes.len());
        self.counts.clear();
        self.counts.resize(self.keys.len(), 0);
        let mut most = 0;
        for hash in hashes.clone() {
            let key = hash.max(1);
            let (at, _) = self.place(key);
            self.keys[at] = key;
            self.counts[at] += 1;
            most = most.max(self.counts[at]);
        }
        if most <= 1 {
            return Top { count: most, first: 0 };
        }
        let is_top = |hash: u64| self.counts[self.place(hash.max(1)).0] == most;
        Top { count: most, first: hashes.into_iter().position(is_top).unwrap_or(0) }
    }
}

/// A hash of bytes that is the same on every machine.
pub(super) fn hash_of(bytes: &[u8]) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = foldhash::fast::FixedState::with_seed(0).build_hasher();
    hasher.write(bytes);
    hasher.finish()
}
