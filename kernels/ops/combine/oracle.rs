//! `combine` in f64.

/// Weighted sums of rows of `columns` elements.
pub(super) fn forward(
    rows: &[f64],
    weight: &[f64],
    row_of: &[i32],
    k: usize,
    columns: usize,
) -> Vec<f64> {
    let mut out = vec![0.0; row_of.len() / k * columns];
    for (pair, &row) in row_of.iter().enumerate().filter(|(_, row)| **row >= 0) {
        for c in 0..columns {
            out[pair / k * columns + c] += weight[pair] * rows[row as usize * columns + c];
        }
    }
    out
}
