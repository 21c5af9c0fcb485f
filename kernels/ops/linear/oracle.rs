//! `linear` in f64.

/// `x wᵀ + b` with rows of `columns` elements.
pub(super) fn forward(x: &[f64], w: &[f64], b: &[f64], columns: usize) -> Vec<f64> {
    let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
    x.chunks(columns)
        .flat_map(|x| {
            w.chunks(columns)
                .enumerate()
                .map(move |(o, w)| dot(x, w) + b.get(o).copied().unwrap_or(0.0))
        })
        .collect()
}
