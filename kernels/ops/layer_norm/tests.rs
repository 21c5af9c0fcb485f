//! `layer_norm` and its gradients at odd sizes, with outliers, cancellation and dead rows.

use crate::emulator::hold::{Hold, Near};
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::add::add;
use crate::ops::layer_norm::{layer_norm, oracle};
use crate::testing::{
    Array, Trial, assert_close, forward, gradients, noise, numeric_gradient, wide,
};

const EPS: f32 = 1e-5;

fn inputs(n: usize, d: usize) -> [Array; 3] {
    [
        Array::f32(&[n, d], noise(1, n * d)),
        Array::f32(&[d], noise(2, d)),
        Array::f32(&[d], noise(3, d)),
    ]
}

fn trace(g: &mut Graph<'_>, x: &[Tensor]) -> Result<Vec<Tensor>> {
    Ok(vec![layer_norm(g, x[0], x[1], x[2], EPS)?])
}

fn truth(x: &[Vec<f64>]) -> Vec<f64> {
    oracle::forward(&x[0], &x[1], &x[2], f64::from(EPS))
}

fn widened(inputs: &[Array]) -> Vec<Vec<f64>> {
    inputs.iter().map(|x| wide(x.floats())).collect()
}

#[test]
fn rows_are_normalised() {
    for (n, d) in [(1, 1), (1, 2), (3, 5), (7, 64), (5, 131), (40, 768)] {
        let inputs = inputs(n, d);
        let got = forward(&inputs, &trace).unwrap();
        assert_close(got[0].floats(), &truth(&widened(&inputs)), 1e-5, 1e-5, "y");
    }
}

#[test]
fn a_large_mean_and_a_constant_row_are_survived() {
    let d = 96;
    let mut x: Vec<f32> = noise(5, d).iter().map(|x| 1000.0 + x).collect();
    x.extend(vec![3.0; d]);
    x.extend(vec![1e-42; d]);
    let inputs =
        [Array::f32(&[3, d], x), Array::f32(&[d], vec![1.0; d]), Array::f32(&[d], vec![0.5; d])];
    let got = forward(&inputs, &trace).unwrap();
    assert_close(got[0].floats(), &truth(&widened(&inputs)), 2e-4, 1e-4, "y");
}

#[test]
fn gradients_agree_with_differences_of_the_oracle() {
    for (n, d) in [(1, 2), (3, 5), (2, 33), (70, 6)] {
        let inputs = inputs(n, d);
        let dy = noise(4, n * d);
        let got = gradients(&inputs, &[Array::f32(&[n, d], dy.clone())], &trace).unwrap();
        for (i, got) in got.iter().enumerate() {
            let expected = numeric_gradient(&widened(&inputs), i, &wide(&dy), &truth);
            assert_close(got.floats(), &expected, 2e-4, 2e-4, &format!("{n} {d} gradient {i}"));
        }
    }
}

#[test]
fn gradients_accumulate() {
    let (n, d) = (4, 9);
    let inputs = inputs(n, d);
    let dy = noise(4, n * d);
    let twice = |g: &mut Graph<'_>, x: &[Tensor]| {
        let a = layer_norm(g, x[0], x[1], x[2], EPS)?;
        let b = layer_norm(g, x[0], x[1], x[2], EPS)?;
        Ok(vec![add(g, a, b)?])
    };
    let got = gradients(&inputs, &[Array::f32(&[n, d], dy.clone())], &twice).unwrap();
    let once = gradients(&inputs, &[Array::f32(&[n, d], dy)], &trace).unwrap();
    for (got, once) in got.iter().zip(&once) {
        let expected: Vec<f64> = once.floats().iter().map(|&x| 2.0 * f64::from(x)).collect();
        assert_close(got.floats(), &expected, 1e-6, 1e-6, "twice");
    }
}

#[test]
fn dead_rows_are_neither_read_nor_written() {
    let (n, d, live) = (5, 7, 3);
    let mut inputs = inputs(n, d).to_vec();
    let expected = forward(&inputs, &trace).unwrap();
    let Array::Float(_, data, _) = &mut inputs[0] else { unreachable!("x is a float") };
    data[live * d..].fill(f32::NAN);
    inputs.push(Array::i32(&[], vec![live as i32]));
    let partly = |g: &mut Graph<'_>, x: &[Tensor]| {
        let rows = g.with_live(x[0], x[3]);
        trace(g, &[rows, x[1], x[2]])
    };
    let got = forward(&inputs, &partly).unwrap();
    assert_eq!(got[0].floats()[..live * d], expected[0].floats()[..live * d]);
    assert!(got[0].floats()[live * d..].iter().all(|x| x.is_nan()));
    let mut dy = noise(4, n * d);
    dy[live * d..].fill(f32::NAN);
    let got = gradients(&inputs, &[Array::f32(&[n, d], dy)], &partly).unwrap();
    assert!(got[0].floats()[..live * d].iter().all(|x| x.is_finite()));
    assert!(got[0].floats()[live * d..].iter().all(|x| x.is_nan()));
    assert!(got[1].floats().iter().chain(got[2].floats()).all(|x| x.is_finite()));
}

#[test]
fn wrong_operands_are_refused() {
    let mut inputs = inputs(2, 3).to_vec();
    inputs[1] = Array::f32(&[4], vec![0.0; 4]);
    let error = forward(&inputs, &trace).unwrap_err();
    assert_eq!(error.to_string(), "layer_norm at : the weight is f32[4], not a float [3]");
}

#[test]
fn a_gpu_agrees() {
    for (n, d) in [(1, 1), (5, 33), (70, 264), (130, 40)] {
        let [w, b] = [2, 3].map(|seed| Array::f32(&[d], noise(seed, d)));
        let inputs = [Array::f32(&[n, d], noise(1, n * d)), w, b];
        let seeds = [Array::f32(&[n, d], noise(4, n * d))];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let hold = Hold { trial, activations: 1, live: None, near: Near::Sums(1e3) };
        hold.run(&|g, x| Ok(vec![layer_norm(g, x[0], x[1], x[2], 1e-5)?]));
        Hold { live: Some(n.div_ceil(2)), ..hold }
            .run(&|g, x| Ok(vec![layer_norm(g, x[0], x[1], x[2], 1e-5)?]));
    }
}

#[test]
fn a_gpu_norms_a_sum() {
    let (n, d) = (21, 48);
    let [a, c] = [1, 5].map(|seed| Array::f32(&[n, d], noise(seed, n * d)));
    let [w, b] = [2, 3].map(|seed| Array::f32(&[d], noise(seed, d)));
    let inputs = [a, c, w, b];
    let seeds = [4, 6].map(|seed| Array::f32(&[n, d], noise(seed, n * d)));
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    Hold { trial, activations: 2, live: None, near: Near::Sums(1e3) }.run(&|g, x| {
        let sum = add(g, x[0], x[1])?;
        Ok(vec![layer_norm(g, sum, x[2], x[3], 1e-5)?, sum])
    });
}
