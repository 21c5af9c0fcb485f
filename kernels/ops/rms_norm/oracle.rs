//! `rms_norm` in f64.

/// Normalises rows as long as `w`.
pub(crate) fn forward(x: &[f64], w: &[f64], eps: f64) -> Vec<f64> {
    let row = |x: &[f64]| -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let rstd = 1.0 / (mean + eps).sqrt();
        x.iter().zip(w).map(|(x, w)| x * rstd * w).collect()
    };
    x.chunks(w.len()).flat_map(row).collect()
}
