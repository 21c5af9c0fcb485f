//! `mean_pool` in f64.

/// Means over the positions of each sequence that `mask` counts.
pub(super) fn forward(x: &[f64], mask: &[i32], positions: usize, columns: usize) -> Vec<f64> {
    let mut y = Vec::new();
    for (x, mask) in x.chunks(positions * columns).zip(mask.chunks(positions)) {
        let count = mask.iter().filter(|m| **m != 0).count();
        for c in 0..columns {
            let counted = (0..positions).filter(|&t| mask[t] != 0);
            y.push(counted.map(|t| x[t * columns + c]).sum::<f64>() / count.max(1) as f64);
        }
    }
    y
}
