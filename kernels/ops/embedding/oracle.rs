//! `embedding` in f64.

/// Looks up rows of `columns` elements.
pub(super) fn forward(tokens: &[i32], table: &[f64], columns: usize) -> Vec<f64> {
    let row = |&token: &i32| &table[token as usize * columns..][..columns];
    tokens.iter().flat_map(row).copied().collect()
}

/// Adds rows of `dy` into a table of `rows` rows.
pub(super) fn gradient(tokens: &[i32], dy: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    let mut table = vec![0.0; rows * columns];
    for (n, &token) in tokens.iter().enumerate() {
        for c in 0..columns {
            table[token as usize * columns + c] += dy[n * columns + c];
        }
    }
    table
}
