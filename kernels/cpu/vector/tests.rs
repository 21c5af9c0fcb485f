//! Same bits at every alignment, length and instruction set; accuracy against f64.

use crate::cpu::isa::{Isa, dispatch};
use crate::cpu::vector;

type Function = (&'static str, fn(Isa, &mut [f32]), fn(f32) -> f32, fn(f64) -> f64);

const FUNCTIONS: [Function; 7] = [
    ("exp", exp_slice, vector::exp, f64::exp),
    ("tanh", tanh_slice, vector::tanh, f64::tanh),
    ("sigmoid", sigmoid_slice, vector::sigmoid, sigmoid),
    ("silu", silu_slice, vector::silu, |x| x * sigmoid(x)),
    ("silu'", silu_derivative_slice, vector::silu_derivative, |x| {
        sigmoid(x) * (1.0 + x * sigmoid(-x))
    }),
    ("gelu", gelu_tanh_slice, vector::gelu_tanh, |x| x * sigmoid(gelu_argument(x))),
    ("gelu'", gelu_tanh_derivative_slice, vector::gelu_tanh_derivative, |x| {
        let (u, slope) = (gelu_argument(x), GELU_SCALE * (1.0 + 3.0 * 0.044715 * x * x));
        sigmoid(u) + x * slope * sigmoid(u) * sigmoid(-u)
    }),
];

dispatch! {
    fn exp_slice(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = vector::exp(*x));
    }

    fn tanh_slice(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = vector::tanh(*x));
    }

    fn sigmoid_slice(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = vector::sigmoid(*x));
    }

    fn silu_slice(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = vector::silu(*x));
    }

    fn silu_derivative_slice(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = vector::silu_derivative(*x));
    }

    fn gelu_tanh_slice(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = vector::gelu_tanh(*x));
    }

    fn gelu_tanh_derivative_slice(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = vector::gelu_tanh_derivative(*x));
    }
}

const GELU_SCALE: f64 = 2.0 * 0.797_884_560_802_865_4;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn gelu_argument(x: f64) -> f64 {
    GELU_SCALE * (x + 0.044715 * x * x * x)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Values of both signs from 2^-20 to 2^8, with specials among them.
fn values(count: usize) -> Vec<f32> {
    let special = [0.0, -0.0, 1e-40, -1e-40, 88.7, -87.4, -103.5, 1e30, -1e30, f32::INFINITY];
    let value = |i: usize| {
        let random = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        let magnitude = (random as f32 / (1 << 24) as f32 * 28.0 - 20.0).exp2();
        if i % 11 == 5 { special[i / 11 % 10] } else { magnitude.copysign(1.0 - (i % 2) as f32) }
    };
    (0..count).map(|i| if i % 2 == 0 { value(i) } else { -value(i) }).collect()
}

/// Distance in units of the last place of the true value, which may be subnormal.
fn error_in_ulps(value: f32, truth: f64) -> f64 {
    let exponent = truth.abs().log2().floor().max(-126.0);
    (f64::from(value) - truth).abs() / (exponent - 23.0).exp2()
}

/// Every 397th float in `[-limit, limit]`.
fn floats(limit: f32) -> impl Iterator<Item = f32> {
    let positive = (0..=limit.to_bits()).step_by(397).map(f32::from_bits);
    positive.flat_map(|x| [x, -x])
}

#[test]
fn elementwise_bits_depend_on_the_value_alone() {
    let values = values(1000);
    for (name, slice, scalar, _) in FUNCTIONS {
        let expected: Vec<f32> = values.iter().map(|&x| scalar(x)).collect();
        for isa in Isa::supported() {
            for offset in 0..=32 {
                for length in [0, 1, 3, 7, 8, 15, 16, 17, 31, 33, 63, 65, 127, 500, 967] {
                    let mut data = values.clone();
                    let part = offset..offset + length;
                    slice(isa, &mut data[part.clone()]);
                    let got = bits(&data[part.clone()]);
                    // NaN is NaN; its payload is not promised.
                    for (at, (&got, &want)) in got.iter().zip(&expected[part]).enumerate() {
                        let nan = want.is_nan() && f32::from_bits(got).is_nan();
                        assert!(
                            nan || got == want.to_bits(),
                            "{name} {isa} offset {offset} length {length} at {at}"
                        );
                    }
                    assert_eq!(bits(&data[..offset]), bits(&values[..offset]));
                    assert_eq!(bits(&data[offset + length..]), bits(&values[offset + length..]));
                }
            }
        }
    }
}

#[test]
fn reduction_bits_do_not_depend_on_alignment_or_isa() {
    let values: Vec<f32> = values(1100).into_iter().map(|x| x.clamp(-300.0, 300.0)).collect();
    for length in [0, 1, 5, 15, 16, 17, 31, 32, 33, 100, 255, 513, 1000] {
        let reduce = |isa: Isa, x: &[f32]| {
            let y = &x[..length];
            let x = &x[x.len() - length..];
            let singles = [vector::sum(isa, x), vector::dot(isa, x, y), vector::max(isa, x)];
            let doubles = [
                vector::sum_f64(isa, x),
                vector::sum_of_squares_f64(isa, x),
                vector::dot_f64(isa, x, y),
            ];
            (bits(&singles), doubles.map(f64::to_bits))
        };
        let data = &values[..length + 40];
        let expected = reduce(Isa::supported().next().unwrap(), data);
        for isa in Isa::supported() {
            for offset in 0..=32 {
                let mut moved = vec![0.0; offset];
                moved.extend_from_slice(data);
                assert_eq!(reduce(isa, &moved[offset..]), expected, "{isa} {length} {offset}");
            }
        }
    }
}

#[test]
fn reductions_are_right() {
    let isa = Isa::detect();
    let x: Vec<f32> = values(997).into_iter().map(|x| x.clamp(-9.0, 9.0)).collect();
    let y: Vec<f32> = x.iter().rev().copied().collect();
    let exact = |pairs: &mut dyn Iterator<Item = (f32, f32)>| {
        pairs.fold((0.0, 0.0), |(sum, size), (x, y)| {
            let product = f64::from(x) * f64::from(y);
            (sum + product, size + product.abs())
        })
    };
    let ones = exact(&mut x.iter().map(|&x| (x, 1.0)));
    let squares = exact(&mut x.iter().map(|&x| (x, x)));
    let products = exact(&mut x.iter().copied().zip(y.iter().copied()));
    for (value, (truth, size), eps) in [
        (f64::from(vector::sum(isa, &x)), ones, f32::EPSILON.into()),
        (f64::from(vector::dot(isa, &x, &y)), products, f32::EPSILON.into()),
        (vector::sum_f64(isa, &x), ones, f64::EPSILON),
        (vector::sum_of_squares_f64(isa, &x), squares, f64::EPSILON),
        (vector::dot_f64(isa, &x, &y), products, f64::EPSILON),
    ] {
        assert!((value - truth).abs() <= 20.0 * eps * size, "{value} {truth}");
    }
    assert_eq!(vector::max(isa, &x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    assert_eq!(vector::max(isa, &[]), f32::NEG_INFINITY);
    assert_eq!(vector::max(isa, &[f32::NAN, -3.0, f32::NAN]), -3.0);
    assert_eq!(vector::sum(isa, &[]), 0.0);
}

#[test]
fn exp_is_within_its_bound() {
    let mut worst = (0.0f64, 0.0f32);
    for x in floats(110.0) {
        let truth = f64::from(x).exp();
        if truth < f64::from(f32::MAX) {
            let error = error_in_ulps(vector::exp(x), truth);
            worst = if error > worst.0 { (error, x) } else { worst };
        }
    }
    assert!(worst.0 < 1.01, "{worst:?}");
}

#[test]
fn exp_has_its_limits() {
    for (x, y) in [
        (0.0, 1.0),
        (-0.0, 1.0),
        (1e-40, 1.0),
        (f32::INFINITY, f32::INFINITY),
        (f32::NEG_INFINITY, 0.0),
        (f32::MAX, f32::INFINITY),
        (f32::MIN, 0.0),
        (88.73, f32::INFINITY),
        (-104.0, 0.0),
    ] {
        assert_eq!(vector::exp(x).to_bits(), f32::to_bits(y), "{x}");
    }
    assert!(vector::exp(88.72).is_finite());
    assert!(vector::exp(-103.0) > 0.0);
    for (name, _, scalar, _) in FUNCTIONS {
        assert!(scalar(f32::NAN).is_nan(), "{name}");
    }
}

#[test]
fn activations_are_accurate() {
    // Relative where the value is a product with x or odd, absolute below 2^-100.
    for (name, _, scalar, truth) in FUNCTIONS {
        for x in floats(80.0).step_by(7) {
            let (value, truth) = (f64::from(scalar(x)), truth(f64::from(x)));
            let conditioning = 1.0 + if name == "tanh" { 0.0 } else { f64::from(x).abs().powi(3) };
            let bound = 2f64.powi(-22) * conditioning * truth.abs() + 2f64.powi(-24);
            assert!((value - truth).abs() <= bound, "{name}({x}) is {value}, not {truth}");
        }
    }
    for x in floats(10.0) {
        assert!(error_in_ulps(vector::tanh(x), f64::from(x).tanh()) < 2.0, "tanh({x})");
        assert_eq!(vector::tanh(-x).to_bits(), (-vector::tanh(x)).to_bits());
    }
}

#[test]
fn activations_have_their_limits() {
    let infinity = f32::INFINITY;
    assert_eq!([vector::tanh(infinity), vector::tanh(-infinity)], [1.0, -1.0]);
    assert_eq!([vector::sigmoid(infinity), vector::sigmoid(-infinity)], [1.0, 0.0]);
    assert_eq!([vector::gelu_tanh(1e30), vector::gelu_tanh(-1e30)], [1e30, 0.0]);
    assert_eq!([vector::silu(1e30), vector::silu(-1e30)], [1e30, 0.0]);
    for derivative in [vector::gelu_tanh_derivative, vector::silu_derivative] {
        assert_eq!([derivative(0.0), derivative(1e30), derivative(-1e30)], [0.5, 1.0, 0.0]);
    }
}

#[test]
fn scaled_sums_are_fused() {
    for isa in Isa::supported() {
        for length in [0, 1, 17, 64, 99] {
            let x = &values(200)[50..50 + length];
            let mut y: Vec<f32> = x.iter().map(|x| x * 0.3).collect();
            let expected: Vec<f32> = y.iter().zip(x).map(|(y, x)| 1.7f32.mul_add(*x, *y)).collect();
            vector::add_scaled(isa, &mut y, 1.7, x);
            assert_eq!(bits(&y), bits(&expected));
            let halved: Vec<f32> = y.iter().map(|y| y * 0.5).collect();
            vector::scale(isa, &mut y, 0.5);
            assert_eq!(bits(&y), bits(&halved));
        }
    }
}
