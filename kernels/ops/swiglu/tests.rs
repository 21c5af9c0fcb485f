//! `swiglu` and its gradient at odd sizes and with dead rows.

use crate::emulator::hold::{Hold, Near};
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::swiglu::swiglu;
use crate::testing::{Array, Trial, assert_close, forward, noise, numeric_gradient, wide};

fn trace(g: &mut Graph<'_>, x: &[Tensor]) -> Result<Vec<Tensor>> {
    Ok(vec![swiglu(g, x[0])?])
}

fn truth(x: &[f64], half: usize) -> Vec<f64> {
    let row = |x: &[f64]| -> Vec<f64> {
        (0..half).map(|i| x[i] / (1.0 + (-x[i]).exp()) * x[half + i]).collect()
    };
    x.chunks(2 * half).flat_map(row).collect()
}

#[test]
fn values_and_gradients_agree_with_f64() {
    for (n, half) in [(1, 1), (3, 5), (4, 17)] {
        let x: Vec<f32> = noise(1, n * 2 * half).iter().map(|x| x * 3.0).collect();
        let dy = noise(2, n * half);
        let inputs = [Array::f32(&[n, 2 * half], x.clone())];
        let seeds = [Array::f32(&[n, half], dy.clone())];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let got = trial.run(&trace).unwrap();
        assert_close(got.outputs[0].floats(), &truth(&wide(&x), half), 1e-6, 1e-6, "y");
        let f = |x: &[Vec<f64>]| truth(&x[0], half);
        let expected = numeric_gradient(&[wide(&x)], 0, &wide(&dy), &f);
        assert_close(got.gradients[0].floats(), &expected, 1e-4, 1e-5, "dx");
    }
}

#[test]
fn many_rows_are_covered_and_dead_ones_untouched() {
    let (n, half, live) = (600, 40, 500);
    let mut x = noise(1, n * 2 * half);
    x[live * 2 * half..].fill(f32::NAN);
    let mut dy = noise(2, n * half);
    dy[live * half..].fill(f32::NAN);
    let inputs = [Array::f32(&[n, 2 * half], x.clone()), Array::i32(&[], vec![live as i32])];
    let seeds = [Array::f32(&[n, half], dy)];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let got = trial
        .run(&|g, x| {
            let rows = g.with_live(x[0], x[1]);
            trace(g, &[rows])
        })
        .unwrap();
    let (y, dx) = (got.outputs[0].floats(), got.gradients[0].floats());
    let expected = truth(&wide(&x[..live * 2 * half]), half);
    assert_close(&y[..live * half], &expected, 1e-6, 1e-6, "y");
    assert!(y[live * half..].iter().chain(&dx[live * 2 * half..]).all(|x| x.is_nan()));
    assert!(dx[..live * 2 * half].iter().all(|x| x.is_finite()));
}

#[test]
fn odd_columns_are_refused() {
    let error = forward(&[Array::f32(&[1, 3], noise(1, 3))], &trace).unwrap_err().to_string();
    assert_eq!(error, "swiglu at : x is f32[1, 3]: its columns have no halves");
}

#[test]
fn a_gpu_has_the_same_bits() {
    for (n, half) in [(1, 1), (5, 17), (300, 24)] {
        let inputs = [Array::f32(&[n, 2 * half], noise(1, n * 2 * half))];
        let seeds = [Array::f32(&[n, half], noise(2, n * half))];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        Hold { trial, activations: 1, live: None, near: Near::Bits }.run(&trace);
    }
}
