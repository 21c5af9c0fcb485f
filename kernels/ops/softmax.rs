//! What attention and the loss share: a logarithm with the same bits everywhere and the pieces of a
//! softmax row. Nothing here calls the C library.

use crate::cpu::vector;
use crate::ops::rows::{LANES, join};

#[cfg(test)]
mod tests;

/// ln(x) of an `f32`, in `f64` to some 1e-15. 0 gives minus infinity, less gives NaN.
pub(crate) fn ln(x: f32) -> f64 {
    if x <= 0.0 || !x.is_finite() {
        return match x {
            0.0 => f64::NEG_INFINITY,
            f32::INFINITY => f64::INFINITY,
            _ => f64::NAN,
        };
    }
    let bits = f64::from(x).to_bits();
    let mut exponent = (bits >> 52) as i32 - 1023;
    let mut mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    // 2 artanh(s) with |s| < 0.172: the first term left out is below 1e-16.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let mut series = 0.0;
    for odd in [19, 17, 15, 13, 11, 9, 7, 5, 3, 1] {
        series = series * square + 1.0 / f64::from(odd);
    }
    f64::from(exponent) * std::f64::consts::LN_2 + 2.0 * s * series
}

/// Largest value of a row; minus infinity if it is empty. A NaN is ignored here and comes back in
/// the sum.
#[inline(always)]
pub(crate) fn row_max(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (blocks, tail) = x.as_chunks::<LANES>();
    for block in blocks {
        lanes.iter_mut().zip(block).for_each(|(lane, &x)| *lane = larger(*lane, x));
    }
    lanes.iter_mut().zip(tail).for_each(|(lane, &x)| *lane = larger(*lane, x));
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = larger(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// e^x, but 0 below e^-87. Subnormal numbers cost a hundred times a normal one, and the masked part
/// of a row would be full of them.
#[inline(always)]
pub(crate) fn exp_or_zero(x: f32) -> f32 {
    const LOWEST: f32 = -87.0;
    let value = vector::exp(if x < LOWEST { LOWEST } else { x });
    if x < LOWEST { 0.0 } else { value }
}

/// Replaces every x by e^(scale x - shift), see [`exp_or_zero`], and returns their sum in fixed
/// lanes.
#[inline(always)]
pub(crate) fn exp_row(x: &mut [f32], scale: f32, shift: f32) -> f32 {
    x.iter_mut().for_each(|x| *x = exp_or_zero(x.mul_add(scale, -shift)));
    let mut lanes = [0.0f32; LANES];
    let (blocks, tail) = x.as_chunks::<LANES>();
    for block in blocks {
        lanes.iter_mut().zip(block).for_each(|(lane, x)| *lane += x);
    }
    lanes.iter_mut().zip(tail).for_each(|(lane, x)| *lane += x);
    join(lanes)
}
