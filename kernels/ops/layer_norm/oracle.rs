//! `layer_norm` in f64.

/// Normalises rows as long as `w`.
pub(super) fn forward(x: &[f64], w: &[f64], b: &[f64], eps: f64) -> Vec<f64> {
    let row = |x: &[f64]| -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        let rstd = 1.0 / (variance + eps).sqrt();
        x.iter().zip(w).zip(b).map(|((x, w), b)| (x - mean) * rstd * w + b).collect()
    };
    x.chunks(w.len()).flat_map(row).collect()
}
