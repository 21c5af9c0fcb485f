//! `contrastive_loss` in f64.

/// The sum over pairs; `a` and `b` have rows of `columns` elements.
pub(super) fn sum(a: &[f64], b: &[f64], log_scale: f64, columns: usize) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut total = 0.0;
    for (from, to) in [(a, b), (b, a)] {
        for (i, from) in from.chunks(columns).enumerate() {
            let logit = |to| log_scale.exp() * dot(from, to);
            let logits: Vec<f64> = to.chunks(columns).map(logit).collect();
            let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let exponentials: f64 = logits.iter().map(|l| (l - largest).exp()).sum();
            total += 0.5 * (largest + exponentials.ln() - logits[i]);
        }
    }
    total
}
