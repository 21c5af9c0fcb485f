//! `gather_rows` in f64.

/// Picks rows of `columns` elements; zeros for a number outside.
pub(super) fn forward(x: &[f64], index: &[i32], columns: usize) -> Vec<f64> {
    let mut out = vec![0.0; index.len() * columns];
    for (m, &from) in index.iter().enumerate() {
        for c in 0..columns {
            let inside = (0..(x.len() / columns) as i32).contains(&from);
            out[m * columns + c] = if inside { x[from as usize * columns + c] } else { 0.0 };
        }
    }
    out
}

/// Adds rows of `dy` to the rows that they came from.
pub(super) fn gradient(index: &[i32], dy: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    let mut dx = vec![0.0; rows * columns];
    for (m, &from) in index.iter().enumerate().filter(|(_, f)| (0..rows as i32).contains(f)) {
        for c in 0..columns {
            dx[from as usize * columns + c] += dy[m * columns + c];
        }
    }
    dx
}
