//! `linear_cross_entropy` in f64.

use crate::ops::linear_cross_entropy::LossOptions;

/// The sum of the terms, and of the cross-entropies alone.
pub(super) fn sums(
    [hidden, w, bias]: [&[f64]; 3],
    labels: &[i32],
    columns: usize,
    options: &LossOptions,
) -> [f64; 2] {
    let mut sums = [0.0; 2];
    for (h, &label) in hidden.chunks(columns).zip(labels) {
        if label < 0 {
            continue;
        }
        let z: Vec<f64> = w
            .chunks(columns)
            .enumerate()
            .map(|(v, w)| {
                let z = h.iter().zip(w).map(|(h, w)| h * w).sum::<f64>();
                let z = z + bias.get(v).copied().unwrap_or(0.0);
                options.softcap.map_or(z, |cap| f64::from(cap) * (z / f64::from(cap)).tanh())
            })
            .collect();
        let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = largest + z.iter().map(|z| (z - largest).exp()).sum::<f64>().ln();
        let mean = z.iter().sum::<f64>() / z.len() as f64;
        let smoothing = f64::from(options.label_smoothing);
        let target = (1.0 - smoothing) * z[label as usize] + smoothing * mean;
        sums[0] += lse - target + f64::from(options.z_loss) * lse * lse;
        sums[1] += lse - z[label as usize];
    }
    sums
}
