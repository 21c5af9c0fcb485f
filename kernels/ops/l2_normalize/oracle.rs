//! `l2_normalize` in f64.

/// Rows of `columns` elements divided by their lengths, or by `eps`.
pub(super) fn forward(x: &[f64], eps: f64, columns: usize) -> Vec<f64> {
    let row = |x: &[f64]| -> Vec<f64> {
        let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt().max(eps);
        x.iter().map(|x| x / norm).collect()
    };
    x.chunks(columns).flat_map(row).collect()
}
