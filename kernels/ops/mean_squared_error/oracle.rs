//! `mean_squared_error` in f64.

/// Σ (a - b)².
pub(super) fn sum(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}
