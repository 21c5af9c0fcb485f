//! `cross_entropy` in f64.

/// The sum of the terms over rows of `columns` logits.
pub(super) fn sum(logits: &[f64], labels: &[i32], columns: usize) -> f64 {
    let term = |(x, &label): (&[f64], &i32)| {
        if label < 0 {
            return 0.0;
        }
        let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = x.iter().map(|x| (x - largest).exp()).sum();
        largest + sum.ln() - x[label as usize]
    };
    logits.chunks(columns).zip(labels).map(term).sum()
}
