//! Elementwise mathematics and reductions whose bits depend on the values alone.
//!
//! A scalar function here is written so that the compiler can run it on whole vectors: no branches,
//! every fma stated. Vector body, tail and every instruction set therefore give the same bits.
//! Reductions use fixed lanes (element i goes to lane i mod lanes, counted from the slice's start)
//! and a fixed tree over the lanes. Ops build their own loops with `dispatch!` from the scalar
//! functions. Nothing here calls the C library.

use crate::cpu::isa::dispatch;

#[cfg(test)]
mod tests;

/// Lanes of f32 reductions.
const LANES: usize = 32;

/// Lanes of f64 reductions.
const LANES_F64: usize = 16;

/// e^x within 1.01 ulp, subnormal results included; NaN stays NaN.
///
/// Cody-Waite reduction to |r| <= ln(2)/2, Cephes' `expf` polynomial, scaling in two steps so that
/// a subnormal result is rounded once.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let x = clamp(x, -104.0, 89.0); // e^-104 rounds to 0, e^89 to infinity
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-355.0 / 512.0, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = 1.987_569_1e-4f32.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_6e-1);
    let p = p.mul_add(r, 0.5);
    let p = p.mul_add(r * r, r) + 1.0;
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// 2^n for -126 <= n <= 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// `x` between `low` and `high`; NaN stays NaN.
#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// Hyperbolic tangent, relative error below 2^-22; odd.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let square = a * a;
    // Cephes' `tanhf` polynomial for |x| < 0.625.
    let p = (-5.704_988_7e-3f32).mul_add(square, 2.063_909e-2);
    let p = p.mul_add(square, -5.373_971_6e-2);
    let p = p.mul_add(square, 1.333_144_2e-1);
    let p = p.mul_add(square, -3.333_328e-1);
    let near = (p * square).mul_add(a, a);
    let far = 1.0 - 2.0 / (exp(2.0 * a) + 1.0);
    let value = if a < 0.625 { near } else { far };
    value.copysign(x)
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// x * sigmoid(x).
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// Slope of [`silu`] at x.
#[inline(always)]
pub fn silu_derivative(x: f32) -> f32 {
    let s = sigmoid(x);
    s * x.mul_add(1.0 - s, 1.0)
}

const GELU_SCALE: f32 = 2.0 * 0.797_884_6; // 2 * sqrt(2 / pi)
const GELU_CUBE: f32 = 0.044_715;

/// GELU with tanh: x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))), which is x * sigmoid of twice
/// the tanh's argument. Hendrycks and Gimpel, arXiv:1606.08415.
#[inline(always)]
pub fn gelu_tanh(x: f32) -> f32 {
    let argument = GELU_SCALE * (x * x * x).mul_add(GELU_CUBE, x);
    x / (1.0 + exp(-argument))
}

/// Slope of [`gelu_tanh`] at x.
#[inline(always)]
pub fn gelu_tanh_derivative(x: f32) -> f32 {
    // Beyond 30 the derivative is 0 or 1, and x^2 must not overflow.
    let x = clamp(x, -30.0, 30.0);
    let square = x * x;
    let argument = GELU_SCALE * (x * square).mul_add(GELU_CUBE, x);
    let slope = GELU_SCALE * square.mul_add(3.0 * GELU_CUBE, 1.0);
    let s = sigmoid(argument);
    (x * slope).mul_add(s * (1.0 - s), s)
}

/// Adds up lanes in a fixed tree.
#[inline(always)]
fn tree<T: Copy, const N: usize>(mut lanes: [T; N], join: impl Fn(T, T) -> T) -> T {
    let mut width = N / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = join(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// Folds element i into lane i mod N and joins the lanes in a fixed tree.
#[inline(always)]
fn reduce<T: Copy, const N: usize>(
    x: &[f32],
    start: T,
    fold: impl Fn(T, f32) -> T,
    join: impl Fn(T, T) -> T,
) -> T {
    let mut lanes = [start; N];
    let (blocks, tail) = x.as_chunks::<N>();
    for block in blocks {
        for (lane, &value) in lanes.iter_mut().zip(block) {
            *lane = fold(*lane, value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(tail) {
        *lane = fold(*lane, value);
    }
    tree(lanes, join)
}

/// [`reduce`] over pairs.
#[inline(always)]
fn reduce_pairs<T: Copy, const N: usize>(
    x: &[f32],
    y: &[f32],
    start: T,
    fold: impl Fn(T, f32, f32) -> T,
    join: impl Fn(T, T) -> T,
) -> T {
    assert_eq!(x.len(), y.len(), "a product of slices of different lengths");
    let mut lanes = [start; N];
    let ((x_blocks, x_tail), (y_blocks, y_tail)) = (x.as_chunks::<N>(), y.as_chunks::<N>());
    for (x, y) in x_blocks.iter().zip(y_blocks) {
        for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
            *lane = fold(*lane, x, y);
        }
    }
    for ((lane, &x), &y) in lanes.iter_mut().zip(x_tail).zip(y_tail) {
        *lane = fold(*lane, x, y);
    }
    tree(lanes, join)
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

#[inline(always)]
fn add(a: f32, b: f32) -> f32 {
    a + b
}

#[inline(always)]
fn add_f64(a: f64, b: f64) -> f64 {
    a + b
}

dispatch! {
    /// Multiplies every value by `factor`.
    pub fn scale(x: &mut [f32], factor: f32) {
        x.iter_mut().for_each(|value| *value *= factor);
    }

    /// y += factor * x, by fma. Panics if the lengths differ.
    pub fn add_scaled(y: &mut [f32], factor: f32, x: &[f32]) {
        assert_eq!(x.len(), y.len(), "a sum of slices of different lengths");
        for (y, &x) in y.iter_mut().zip(x) {
            *y = factor.mul_add(x, *y);
        }
    }

    /// Sum in f32; 0 if empty.
    pub fn sum(x: &[f32]) -> f32 {
        reduce::<_, LANES>(x, 0.0, add, add)
    }

    /// Sum in f64; 0 if empty.
    pub fn sum_f64(x: &[f32]) -> f64 {
        reduce::<_, LANES_F64>(x, 0.0, |sum, x| sum + f64::from(x), add_f64)
    }

    /// Sum of squares in f64; each square is exact.
    pub fn sum_of_squares_f64(x: &[f32]) -> f64 {
        let fold = |sum, x| sum + f64::from(x) * f64::from(x);
        reduce::<_, LANES_F64>(x, 0.0, fold, add_f64)
    }

    /// Inner product in f32, by fma. Panics if the lengths differ.
    pub fn dot(x: &[f32], y: &[f32]) -> f32 {
        reduce_pairs::<_, LANES>(x, y, 0.0, |sum: f32, x: f32, y| x.mul_add(y, sum), add)
    }

    /// Inner product in f64; each product is exact. Panics if the lengths differ.
    pub fn dot_f64(x: &[f32], y: &[f32]) -> f64 {
        let fold = |sum, x, y| sum + f64::from(x) * f64::from(y);
        reduce_pairs::<_, LANES_F64>(x, y, 0.0, fold, add_f64)
    }

    /// Largest value; ignores NaN; minus infinity if there is none.
    pub fn max(x: &[f32]) -> f32 {
        reduce::<_, LANES>(x, f32::NEG_INFINITY, larger, larger)
    }
}
