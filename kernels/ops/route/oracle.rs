//! The weights of `route` in f64, for experts that are already chosen.

use super::Score;

/// Weights of the chosen experts of each token, k per token.
pub(super) fn weights(
    logits: &[f64],
    experts: usize,
    chosen: &[i32],
    k: usize,
    score: Score,
    normalize: bool,
) -> Vec<f64> {
    let mut weights = Vec::new();
    for (x, chosen) in logits.chunks(experts).zip(chosen.chunks(k)) {
        let sum: f64 = x.iter().map(|x| x.exp()).sum();
        let score = |e: &i32| match score {
            Score::Softmax => x[*e as usize].exp() / sum,
            Score::Sigmoid => 1.0 / (1.0 + (-x[*e as usize]).exp()),
        };
        let divisor = if normalize { chosen.iter().map(score).sum() } else { 1.0 };
        weights.extend(chosen.iter().map(|e| score(e) / divisor));
    }
    weights
}
