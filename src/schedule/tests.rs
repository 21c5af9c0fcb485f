//! Tests of the learning rate: values of the reference formula, and what a resume relies on.

use super::{ScheduleConfig, Shape};

fn schedule(shape: Shape) -> ScheduleConfig {
    ScheduleConfig { shape, ..ScheduleConfig::default() }
}

/// Warm-up and cosine as in the PyTorch peer, in the same order of operations.
fn reference(step: u64, steps: u64) -> f64 {
    let (rate, minimum, warmup) = (1e-3, 1e-4, 100);
    if step < warmup {
        return rate * (step + 1) as f64 / warmup as f64;
    }
    let progress = std::f64::consts::PI * (step - warmup) as f64 / (steps - warmup).max(1) as f64;
    minimum + 0.5 * (rate - minimum) * (1.0 + progress.cos())
}

#[test]
fn cosine_is_the_reference_formula_bit_for_bit() {
    let schedule = schedule(Shape::Cosine);
    for step in 0..2000 {
        assert_eq!(schedule.rate(step, 2000), reference(step, 2000), "step {step}");
    }
    assert_eq!(schedule.rate(0, 2000), 1e-5);
    assert_eq!(schedule.rate(99, 2000), 1e-3);
    assert_eq!(schedule.rate(100, 2000), 1e-3);
    assert!((schedule.rate(1050, 2000) - 5.5e-4).abs() < 1e-18);
    assert_eq!(schedule.rate(2000, 2000), 1e-4);
    assert_eq!(schedule.rate(3000, 2000), 1e-4);
}

#[test]
fn linear_and_constant_share_the_warm_up() {
    let (linear, constant) = (schedule(Shape::Linear), schedule(Shape::Constant));
    for step in 0..100 {
        assert_eq!(linear.rate(step, 1100), reference(step, 1100));
        assert_eq!(constant.rate(step, 1100), reference(step, 1100));
    }
    assert!((linear.rate(600, 1100) - 5.5e-4).abs() < 1e-18);
    assert!((linear.rate(1100, 1100) - 1e-4).abs() < 1e-18);
    assert_eq!(constant.rate(1100, 1100), 1e-3);
}

#[test]
fn without_warm_up_the_first_step_has_the_peak() {
    let schedule = ScheduleConfig { warmup: 0, ..schedule(Shape::Cosine) };
    assert_eq!(schedule.rate(0, 10), 1e-3);
}

#[test]
fn a_given_length_makes_rates_independent_of_the_run() {
    let fixed = ScheduleConfig { steps: Some(500), ..schedule(Shape::Cosine) };
    for step in [0, 100, 250, 499, 700] {
        assert_eq!(fixed.rate(step, 600), fixed.rate(step, 9000));
    }
    assert_eq!(fixed.horizon(600), Some(500));
    assert_eq!(schedule(Shape::Cosine).horizon(600), Some(600));
    assert_eq!(schedule(Shape::Constant).horizon(600), None);
    assert_eq!(schedule(Shape::Cosine).horizon(100), None);
}
