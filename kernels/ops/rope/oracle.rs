//! `rope` in f64, by complex numbers.

use crate::ops::rope::{RopeScaling, RopeSpec};

/// The wavelength rule of Hugging Face's `_compute_llama3_parameters`, written out.
fn frequency(spec: &RopeSpec, i: usize) -> f64 {
    let plain = 1.0 / spec.theta.powf(2.0 * i as f64 / spec.head_dim as f64);
    let RopeScaling::Llama3 { factor, low, high, original_length } = spec.scaling else {
        return plain;
    };
    let wavelength = 2.0 * std::f64::consts::PI / plain;
    if wavelength < original_length / high {
        plain
    } else if wavelength > original_length / low {
        plain / factor
    } else {
        let smooth = (original_length / wavelength - low) / (high - low);
        (1.0 - smooth) * plain / factor + smooth * plain
    }
}

/// Rotates the first heads of rows of `columns` elements.
pub(super) fn forward(
    x: &[f64],
    positions: &[i32],
    columns: usize,
    heads: usize,
    spec: &RopeSpec,
) -> Vec<f64> {
    let (mut y, half) = (x.to_vec(), spec.head_dim / 2);
    for (row, &position) in y.chunks_mut(columns).zip(positions) {
        for head in row[..heads * spec.head_dim].chunks_mut(spec.head_dim) {
            for i in 0..half {
                let angle = f64::from(position) * frequency(spec, i);
                let (re, im) = (head[i], head[i + half]);
                head[i] = re * angle.cos() - im * angle.sin();
                head[i + half] = re * angle.sin() + im * angle.cos();
            }
        }
    }
    y
}
