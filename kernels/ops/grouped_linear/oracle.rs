//! `grouped_linear` in f64.

/// `x` times the transposed weights `[experts, out, inner]`, rows by `start`.
pub(super) fn forward(x: &[f64], w: &[f64], start: &[i32], out: usize, inner: usize) -> Vec<f64> {
    let mut y = vec![0.0; x.len() / inner * out];
    for (expert, edge) in start.windows(2).enumerate() {
        for row in edge[0] as usize..edge[1] as usize {
            for o in 0..out {
                let w = &w[(expert * out + o) * inner..][..inner];
                let x = &x[row * inner..][..inner];
                y[row * out + o] = x.iter().zip(w).map(|(x, w)| x * w).sum();
            }
        }
    }
    y
}
