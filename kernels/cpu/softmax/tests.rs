//! The logarithm, and softmax of a row at every length, against f64.

use crate::cpu::isa::Isa;
use crate::cpu::softmax::{add_exp, exp_row, exp_sum, ln, log_sum_exp, row_max, softmax_parts};
use crate::testing::noise;

#[test]
fn the_logarithm_is_that_of_f64() {
    for bits in (1..f32::INFINITY.to_bits()).step_by(9973) {
        let x = f32::from_bits(bits);
        let truth = f64::from(x).ln();
        assert!((ln(x) - truth).abs() <= 4e-15 * truth.abs().max(0.1), "ln({x}) is {}", ln(x));
    }
    assert_eq!([ln(0.0), ln(1.0), ln(f32::INFINITY)], [f64::NEG_INFINITY, 0.0, f64::INFINITY]);
    assert!(ln(-1.0).is_nan() && ln(f32::NAN).is_nan());
}

#[test]
fn rows_of_every_length_are_covered() {
    for n in [0, 1, 15, 16, 17, 50, 64] {
        let x = noise(1, n);
        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert_eq!(row_max(&x), max);
        let mut y = x.clone();
        let sum = exp_row(&mut y, 0.5, 0.25);
        let truth = |x: f32| (0.5 * f64::from(x) - 0.25).exp();
        for (&x, &y) in x.iter().zip(&y) {
            assert!(
                (f64::from(y) - truth(x)).abs() <= 4e-7 * truth(x) * (1.0 + truth(x).ln().abs())
            );
        }
        let total: f64 = y.iter().map(|&y| f64::from(y)).sum();
        assert!((f64::from(sum) - total).abs() <= 1e-6 * total);
    }
}

#[test]
fn masked_values_weigh_nothing() {
    let mut x = vec![f32::NEG_INFINITY, 2.0, f32::NEG_INFINITY];
    assert_eq!(row_max(&x), 2.0);
    assert_eq!(exp_row(&mut x, 1.0, 2.0), 1.0);
    assert_eq!(x, [0.0, 1.0, 0.0]);
}

#[test]
fn log_sum_exp_is_accurate_at_every_length() {
    for n in [1, 2, 31, 32, 33, 100, 5000] {
        for rate in [1.0f32, 0.25] {
            let x: Vec<f32> = noise(n as u64, n).iter().map(|x| x * 20.0).collect();
            let truth = x.iter().map(|&x| (f64::from(x) * f64::from(rate)).exp()).sum::<f64>().ln();
            let got = log_sum_exp(Isa::detect(), &x, rate);
            assert!((got - truth).abs() < 1e-5, "{n}: {got} {truth}");
        }
    }
}

#[test]
fn instruction_sets_agree_and_softmax_sums_to_one() {
    let x = noise(9, 1001);
    for isa in Isa::supported() {
        let (largest, sum) = softmax_parts(isa, &x, 1.0);
        assert_eq!(sum, exp_sum(Isa::detect(), &x, largest, 1.0));
        let mut out = vec![0.0; x.len()];
        add_exp(isa, &mut out, &x, largest, 1.0, 1.0 / sum);
        let total: f64 = out.iter().map(|&p| f64::from(p)).sum();
        assert!((total - 1.0).abs() < 1e-6, "{total}");
    }
}

#[test]
fn minus_infinity_has_no_weight_and_an_empty_softmax_is_not_a_number() {
    let row = [f32::NEG_INFINITY, 2.0, f32::NEG_INFINITY];
    assert_eq!(log_sum_exp(Isa::detect(), &row, 1.0), 2.0);
    assert!(log_sum_exp(Isa::detect(), &[f32::NEG_INFINITY], 1.0).is_nan());
}
