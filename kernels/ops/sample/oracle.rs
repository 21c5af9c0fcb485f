//! `sample` in f64.

/// -log(1 - u) of a random word.
pub(super) fn exponential(word: u32) -> f64 {
    -(-(f64::from(word) + 0.5) / 2f64.powi(32)).ln_1p()
}

/// Arrival times of the classes of one row.
pub(super) fn arrivals(x: &[f32], temperature: f64, word: impl Fn(u64) -> u32) -> Vec<f64> {
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let time = |(v, &x): (usize, &f32)| {
        exponential(word(v as u64)) * (f64::from(largest - x) / temperature).exp()
    };
    x.iter().enumerate().map(time).collect()
}
