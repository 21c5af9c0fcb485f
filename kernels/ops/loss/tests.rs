//! Softmax of a row at every length, against f64.

use crate::cpu::isa::Isa;
use crate::ops::loss::{add_exp, exp_sum, log_sum_exp, softmax_parts};
use crate::testing::noise;

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
