//! `rope` in f64, by complex numbers.

use crate::ops::rope::{RopeScaling, RopeSpec};

/// The rules of Hugging Face's `modeling_rope_utils.py`, written out.
fn frequency(spec: &RopeSpec, i: usize) -> f64 {
    let plain = 1.0 / spec.theta.powf(2.0 * i as f64 / spec.head_dim as f64);
    match spec.scaling {
        RopeScaling::None => plain,
        RopeScaling::Linear { factor } => plain / factor,
        RopeScaling::Llama3 { .. } => llama3(spec, plain),
        RopeScaling::Yarn { .. } => yarn(spec, plain, i),
    }
}

fn llama3(spec: &RopeSpec, plain: f64) -> f64 {
    let RopeScaling::Llama3 { factor, low, high, original_length } = spec.scaling else {
        unreachable!("asked for llama3 only")
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

fn yarn(spec: &RopeSpec, plain: f64, i: usize) -> f64 {
    let RopeScaling::Yarn { factor, fast, slow, original_length, whole, .. } = spec.scaling else {
        unreachable!("asked for yarn only")
    };
    let dim = spec.head_dim as f64;
    let correction = |rotations: f64| {
        let ratio = original_length / (rotations * 2.0 * std::f64::consts::PI);
        dim * ratio.ln() / (2.0 * spec.theta.ln())
    };
    let round = |low: f64, high: f64| if whole { (low.floor(), high.ceil()) } else { (low, high) };
    let (low, high) = round(correction(fast), correction(slow));
    let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
    if low == high {
        high += 0.001;
    }
    let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
    let (interpolation, extrapolation) = (plain / factor, plain);
    interpolation * ramp + extrapolation * (1.0 - ramp)
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
    let magnitude = match spec.scaling {
        RopeScaling::Yarn { magnitude, .. } => magnitude,
        _ => 1.0,
    };
    for (row, &position) in y.chunks_mut(columns).zip(positions) {
        for head in row[..heads * spec.head_dim].chunks_mut(spec.head_dim) {
            for i in 0..half {
                let angle = f64::from(position) * frequency(spec, i);
                let (re, im) = (magnitude * head[i], magnitude * head[i + half]);
                head[i] = re * angle.cos() - im * angle.sin();
                head[i + half] = re * angle.sin() + im * angle.cos();
            }
        }
    }
    y
}
