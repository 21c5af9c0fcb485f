//! What attention and losses share on the CPU: a logarithm with the same bits everywhere, and
//! softmax over a row. Nothing here calls the C library.

use crate::cpu::CpuRun;
use crate::cpu::isa::{Isa, dispatch};
use crate::cpu::rows::{LANES, join};
use crate::cpu::vector::{self, exp};

#[cfg(test)]
mod tests;

/// Writes the first two outputs of a loss: the scaled sum and the sum.
pub(crate) fn write_loss(run: &CpuRun<'_>, scale: f32, sum: f64) {
    run.output::<f32>(0)[0] = (f64::from(scale) * sum) as f32;
    run.output::<f32>(1)[0] = sum as f32;
}

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

/// The largest value of a row and the sum of e^((x - largest) rate); softmax of `x · rate` is their
/// quotient. `rate` is above 0.
pub(crate) fn softmax_parts(isa: Isa, x: &[f32], rate: f32) -> (f32, f32) {
    let largest = vector::max(isa, x);
    (largest, exp_sum(isa, x, largest, rate))
}

/// log(Σ e^(x · rate)) of a row.
pub(crate) fn log_sum_exp(isa: Isa, x: &[f32], rate: f32) -> f64 {
    let (largest, sum) = softmax_parts(isa, x, rate);
    f64::from(largest) * f64::from(rate) + ln(sum)
}

dispatch! {
    /// Σ e^((x - shift) rate): element i goes to lane i mod 32, lanes are joined in a fixed tree.
    pub(crate) fn exp_sum(x: &[f32], shift: f32, rate: f32) -> f32 {
        let mut lanes = [0.0f32; LANES];
        let (blocks, tail) = x.as_chunks::<LANES>();
        for block in blocks {
            for (lane, &x) in lanes.iter_mut().zip(block) {
                *lane += exp((x - shift) * rate);
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(tail) {
            *lane += exp((x - shift) * rate);
        }
        join(lanes)
    }

    /// out += factor · e^((x - shift) rate), by fma.
    pub(crate) fn add_exp(out: &mut [f32], x: &[f32], shift: f32, rate: f32, factor: f32) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = factor.mul_add(exp((x - shift) * rate), *out);
        }
    }
}
