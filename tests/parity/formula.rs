//! What both sides compute from names: weights, tokens, borders of documents, signs of projections.
//!
//! The same formulas as in `scripts/parity_reference.py`; all integers wrap at 32 bits.

/// Random projections per tensor.
pub(crate) const PROJECTIONS: usize = 8;

/// FNV-1a (Fowler, Noll, Vo).
fn seed(text: &str) -> u32 {
    let step = |value: u32, byte| (value ^ u32::from(byte)).wrapping_mul(16_777_619);
    text.bytes().fold(2_166_136_261, step)
}

/// An integer mixer (C. Wellons, "Prospecting for hash functions", 2018).
fn mixed(seed: u32, i: usize) -> u32 {
    let mut x = seed.wrapping_add((i as u32).wrapping_mul(0x9E37_79B9));
    x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
    x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
    x ^ (x >> 16)
}

/// The first value of element `i` of a parameter.
pub(crate) fn weight(name: &str, i: usize) -> f32 {
    let unit = (mixed(seed(name), i) >> 8) as f32 / (1 << 24) as f32 - 0.5;
    let center = if name.ends_with("norm.weight") { 1.0 } else { 0.0 };
    unit * 0.25 + center
}

/// Token number `i` of a step.
pub(crate) fn token(step: u64, i: usize, vocabulary: usize) -> i32 {
    (mixed(seed(&format!("tokens/{step}")), i) % vocabulary as u32) as i32
}

/// Number `i` of what is drawn for a step under a name.
pub(crate) fn drawn(what: &str, step: u64, i: usize) -> u32 {
    mixed(seed(&format!("{what}/{step}")), i)
}

/// Whether a document begins at place `i` of a step.
pub(crate) fn border(step: u64, i: usize) -> bool {
    mixed(seed(&format!("borders/{step}")), i).is_multiple_of(7)
}

/// Sums of a tensor's elements under random signs.
pub(crate) fn projections(name: &str, values: &[f32]) -> [f64; PROJECTIONS] {
    let seed = seed(&format!("projection/{name}"));
    let mut sums = [0.0; PROJECTIONS];
    for (i, &value) in values.iter().enumerate() {
        let bits = mixed(seed, i);
        for (k, sum) in sums.iter_mut().enumerate() {
            let negative = (bits >> k) & 1 == 1;
            *sum += if negative { -f64::from(value) } else { f64::from(value) };
        }
    }
    sums
}
