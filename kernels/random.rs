//! Counter-based random numbers (Philox4x32-10).
//!
//! A number is a pure function of (run seed, site, step, sample, element); nothing here keeps a
//! state. CUDA kernels compute the same integers from [`RandomStream::key_of`] and [`counter`].
//! The generator: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

use std::num::NonZero;
use std::thread;

#[cfg(test)]
mod tests;

pub(crate) const ROUNDS: usize = 10;
pub(crate) const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
pub(crate) const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Philox4x32 with ten rounds: four random words for a 128-bit counter and a 64-bit key.
pub const fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut x0, mut x1, mut x2, mut x3], [mut k0, mut k1]) = (counter, key);
    let mut round = 0;
    while round < ROUNDS {
        let low = x0 as u64 * MULTIPLIERS[0] as u64;
        let high = x2 as u64 * MULTIPLIERS[1] as u64;
        (x0, x1, x2, x3) =
            ((high >> 32) as u32 ^ x1 ^ k0, high as u32, (low >> 32) as u32 ^ x3 ^ k1, low as u32);
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
        round += 1;
    }
    [x0, x1, x2, x3]
}

/// The finaliser of SplitMix64: a bijection of 64-bit integers.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Philox' counter: `[block, step, low half of sample, high half of sample]`.
///
/// Panics if `step` exceeds 32 bits.
pub const fn counter(step: u64, sample: u64, block: u32) -> [u32; 4] {
    assert!(step <= u32::MAX as u64, "a step beyond 32 bits");
    [block, step as u32, sample as u32, (sample >> 32) as u32]
}

/// Where random numbers are used: the stable hash of an op's or parameter's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site(u64);

impl Site {
    /// FNV-1a (64 bits) of the path's bytes. Never changes: checkpoints rely on it.
    pub const fn new(path: &str) -> Self {
        let bytes = path.as_bytes();
        let mut hash = 0xCBF2_9CE4_8422_2325u64;
        let mut at = 0;
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01B3);
            at += 1;
        }
        Self(hash)
    }

    /// The hash.
    pub const fn value(self) -> u64 {
        self.0
    }
}

/// Normal values for which a thread is worth starting.
const PART_ELEMENTS: usize = 1 << 18;

/// The random numbers of one site in one run.
///
/// Element `e` of a (step, sample) is word `e % 4` of block `e / 4`. Philox counts 2^32 blocks: the
/// next 2^32 have a key of their own, and so on.
/// What does not belong to a step or sample (initial parameters) uses step 0 and sample 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomStream {
    /// Seed of the run.
    pub seed: u64,
    /// Who asks.
    pub site: Site,
}

impl RandomStream {
    /// Philox' key, low word first: `mix(mix(seed) ^ site)`, with SplitMix64's finaliser.
    /// For one seed it is different for different sites, and for one site for different seeds.
    pub const fn key(&self) -> [u32; 2] {
        let key = mix(mix(self.seed) ^ self.site.0);
        [key as u32, (key >> 32) as u32]
    }

    /// The key of a block: [`Self::key`] for the first 2^32, another for each further 2^32.
    pub const fn key_of(&self, block: u64) -> [u32; 2] {
        let [low, high] = self.key();
        match block >> 32 {
            0 => [low, high],
            round => {
                let key = mix((low as u64 | (high as u64) << 32) ^ mix(round));
                [key as u32, (key >> 32) as u32]
            }
        }
    }

    /// The four words of a block.
    pub const fn block(&self, step: u64, sample: u64, block: u64) -> [u32; 4] {
        philox(counter(step, sample, block as u32), self.key_of(block))
    }

    /// The word of an element.
    pub const fn word(&self, step: u64, sample: u64, element: u64) -> u32 {
        self.block(step, sample, element / 4)[(element % 4) as usize]
    }

    /// A multiple of 2^-24 in [0, 1).
    pub const fn uniform(&self, step: u64, sample: u64, element: u64) -> f32 {
        unit(self.word(step, sample, element))
    }

    /// Elements `first..` of (step, sample), each in [0, 1).
    pub fn fill_uniform(&self, step: u64, sample: u64, first: u64, out: &mut [f32]) {
        self.fill(step, sample, first, out, |words| words.map(unit));
    }

    /// Standard normal elements `first..` times `std`, for initial parameters (step 0, sample 0).
    /// Box-Muller in f64; words 2i and 2i+1 of a block make elements 2i (cosine) and 2i+1 (sine).
    /// Many of them are made on all cores of the machine; which is where tells nobody.
    pub fn fill_normal(&self, first: u64, out: &mut [f32], std: f64) {
        let normal = |words: [u32; 4]| {
            let (low, high) = (normal_pair(words[0], words[1]), normal_pair(words[2], words[3]));
            [low.0, low.1, high.0, high.1].map(|normal| (normal * std) as f32)
        };
        if out.len() <= PART_ELEMENTS {
            return self.fill(0, 0, first, out, normal);
        }
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let part = out.len().div_ceil(threads).max(PART_ELEMENTS);
        thread::scope(|scope| {
            let mut parts = (first..).step_by(part).zip(out.chunks_mut(part));
            let own = parts.next();
            for (first, part) in parts {
                scope.spawn(move || self.fill(0, 0, first, part, normal));
            }
            own.into_iter().for_each(|(first, part)| self.fill(0, 0, first, part, normal));
        });
    }

    fn fill(
        &self,
        step: u64,
        sample: u64,
        first: u64,
        out: &mut [f32],
        values: impl Fn([u32; 4]) -> [f32; 4],
    ) {
        let block = |element| values(self.block(step, sample, element / 4));
        let head = (first.next_multiple_of(4) - first).min(out.len() as u64) as usize;
        let (head, rest) = out.split_at_mut(head);
        if !head.is_empty() {
            head.copy_from_slice(&block(first)[(first % 4) as usize..][..head.len()]);
        }
        let rest_first = first + head.len() as u64;
        for (index, part) in rest.chunks_mut(4).enumerate() {
            let values = block(rest_first + 4 * index as u64);
            part.copy_from_slice(&values[..part.len()]);
        }
    }
}

const fn unit(word: u32) -> f32 {
    (word >> 8) as f32 / (1u32 << 24) as f32
}

fn normal_pair(first: u32, second: u32) -> (f64, f64) {
    const SCALE: f64 = 1.0 / (1u64 << 32) as f64;
    let radius = (-2.0 * ((f64::from(first) + 1.0) * SCALE).ln()).sqrt();
    let (sine, cosine) = (f64::from(second) * SCALE * std::f64::consts::TAU).sin_cos();
    (radius * cosine, radius * sine)
}
