//! Activation functions on the CPU, by chunks of elements.

use crate::cpu::isa::{Isa, dispatch};
use crate::cpu::{CpuRun, vector};
use crate::ops::activation::Activation;

/// Elements of one chunk.
const CHUNK: usize = 16 * 1024;

pub(super) fn forward(run: &CpuRun<'_>, kind: Activation) {
    let live = run.live_input(0) * run.input_spec(0).elements_per_row();
    let (x, y) = (run.input::<f32>(0), &mut run.output::<f32>(0)[..live]);
    let device = run.device();
    device.pool.map_chunks(y, CHUNK, |chunk, y| {
        value(device.isa, kind, &x[chunk * CHUNK..][..y.len()], y);
    });
}

/// `y = f(x)`.
pub(crate) fn value(isa: Isa, kind: Activation, x: &[f32], y: &mut [f32]) {
    match kind {
        Activation::Gelu => gelu(isa, x, y),
        Activation::GeluErf => gelu_erf(isa, x, y),
        Activation::Silu => silu(isa, x, y),
    }
}

pub(super) fn gradient(run: &CpuRun<'_>, kind: Activation) {
    let live = run.live_input(0) * run.input_spec(0).elements_per_row();
    let (dy, x) = (run.input::<f32>(0), run.input::<f32>(1));
    let (dx, device) = (&mut run.output::<f32>(0)[..live], run.device());
    device.pool.map_chunks(dx, CHUNK, |chunk, dx| {
        let part = chunk * CHUNK..chunk * CHUNK + dx.len();
        let (dy, x) = (&dy[part.clone()], &x[part]);
        match kind {
            Activation::Gelu => gelu_gradient(device.isa, dy, x, dx),
            Activation::GeluErf => gelu_erf_gradient(device.isa, dy, x, dx),
            Activation::Silu => silu_gradient(device.isa, dy, x, dx),
        }
    });
}

/// Φ(x): half the complementary error function of -x/√2, relative error below 2^-19 for |x| < 5.
/// The Chebyshev fit of Press et al., "Numerical Recipes", `erfcc`.
#[inline(always)]
fn normal_cdf(x: f32) -> f32 {
    const COEFFICIENTS: [f32; 9] = [
        -0.822_152_23,
        1.488_515_9,
        -1.135_204,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_7,
        -1.265_512_2,
    ];
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / 0.5f32.mul_add(z, 1.0);
    let mut p = 0.170_872_77f32;
    for c in COEFFICIENTS {
        p = p.mul_add(t, c);
    }
    let tail = 0.5 * t * vector::exp((-z).mul_add(z, p));
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// x Φ(x). Far to the left it is 0: the product with an infinite x is not taken.
#[inline(always)]
fn gelu_erf_scalar(x: f32) -> f32 {
    let x = if x < -20.0 { -20.0 } else { x };
    x * normal_cdf(x)
}

/// Φ(x) + x φ(x).
#[inline(always)]
fn gelu_erf_derivative(x: f32) -> f32 {
    const SCALE: f32 = 0.398_942_3; // 1 / √(2π)
    let near = if x.abs() > 20.0 { 20.0f32.copysign(x) } else { x };
    (near * SCALE).mul_add(vector::exp(-0.5 * near * near), normal_cdf(near))
}

dispatch! {
    fn gelu(x: &[f32], y: &mut [f32]) {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = vector::gelu_tanh(x));
    }

    fn gelu_erf(x: &[f32], y: &mut [f32]) {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = gelu_erf_scalar(x));
    }

    fn silu(x: &[f32], y: &mut [f32]) {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = vector::silu(x));
    }

    fn gelu_gradient(dy: &[f32], x: &[f32], dx: &mut [f32]) {
        let terms = dx.iter_mut().zip(dy.iter().zip(x));
        terms.for_each(|(dx, (&dy, &x))| *dx = dy * vector::gelu_tanh_derivative(x));
    }

    fn gelu_erf_gradient(dy: &[f32], x: &[f32], dx: &mut [f32]) {
        let terms = dx.iter_mut().zip(dy.iter().zip(x));
        terms.for_each(|(dx, (&dy, &x))| *dx = dy * gelu_erf_derivative(x));
    }

    fn silu_gradient(dy: &[f32], x: &[f32], dx: &mut [f32]) {
        let terms = dx.iter_mut().zip(dy.iter().zip(x));
        terms.for_each(|(dx, (&dy, &x))| *dx = dy * vector::silu_derivative(x));
    }
}
