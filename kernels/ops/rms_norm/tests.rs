//! `rms_norm` and its gradients at odd sizes, with outliers, subnormals and dead rows.

use crate::emulator::hold::{Hold, Near};
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::add::add;
use crate::ops::rms_norm::{oracle, rms_norm};
use crate::testing::{
    Array, Trial, assert_close, forward, gradients, noise, numeric_gradient, wide,
};

const EPS: f32 = 1e-5;

fn inputs(n: usize, d: usize) -> [Array; 2] {
    [Array::f32(&[n, d], noise(1, n * d)), Array::f32(&[d], noise(2, d))]
}

fn trace(g: &mut Graph<'_>, x: &[Tensor]) -> Result<Vec<Tensor>> {
    Ok(vec![rms_norm(g, x[0], x[1], EPS)?])
}

fn truth(x: &[Vec<f64>]) -> Vec<f64> {
    oracle::forward(&x[0], &x[1], f64::from(EPS))
}

fn widened(inputs: &[Array]) -> Vec<Vec<f64>> {
    inputs.iter().map(|x| wide(x.floats())).collect()
}

#[test]
fn rows_are_normalised() {
    for (n, d) in [(1, 1), (3, 5), (7, 64), (5, 131), (40, 768)] {
        let inputs = inputs(n, d);
        let got = forward(&inputs, &trace).unwrap();
        assert_close(got[0].floats(), &truth(&widened(&inputs)), 1e-6, 1e-6, "y");
    }
}

#[test]
fn subnormal_and_large_rows_are_survived() {
    let d = 33;
    let mut x = vec![1e-42; d];
    x.extend(noise(3, d).iter().map(|x| x * 1e15));
    x.extend(vec![0.0; d]);
    let inputs = [Array::f32(&[3, d], x), Array::f32(&[d], vec![1.0; d])];
    let got = forward(&inputs, &trace).unwrap();
    assert_close(got[0].floats(), &truth(&widened(&inputs)), 1e-42, 1e-6, "y");
}

#[test]
fn gradients_agree_with_differences_of_the_oracle() {
    for (n, d) in [(1, 1), (3, 5), (2, 33), (70, 6)] {
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
        let (a, b) = (rms_norm(g, x[0], x[1], EPS)?, rms_norm(g, x[0], x[1], EPS)?);
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
        let rows = g.with_live(x[0], x[2]);
        trace(g, &[rows, x[1]])
    };
    let got = forward(&inputs, &partly).unwrap();
    assert_eq!(got[0].floats()[..live * d], expected[0].floats()[..live * d]);
    assert!(got[0].floats()[live * d..].iter().all(|x| x.is_nan()));
    let mut dy = noise(4, n * d);
    dy[live * d..].fill(f32::NAN);
    let got = gradients(&inputs, &[Array::f32(&[n, d], dy)], &partly).unwrap();
    assert!(got[0].floats()[..live * d].iter().all(|x| x.is_finite()));
    assert!(got[0].floats()[live * d..].iter().all(|x| x.is_nan()));
    assert!(got[1].floats().iter().all(|x| x.is_finite()));
}

#[test]
fn a_gpu_agrees() {
    for (n, d) in [(1, 1), (5, 33), (70, 264), (130, 40)] {
        let inputs = inputs(n, d);
        let seeds = [Array::f32(&[n, d], noise(4, n * d))];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        Hold { trial, activations: 1, live: None, near: Near::Sums(1e3) }.run(&trace);
    }
}

#[test]
fn a_gpu_norms_a_sum_and_leaves_dead_rows() {
    let (n, d) = (21, 48);
    let [x, w] = inputs(n, d);
    let inputs = [x, Array::f32(&[n, d], noise(5, n * d)), w];
    let seeds = [Array::f32(&[n, d], noise(4, n * d)), Array::f32(&[n, d], noise(6, n * d))];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    Hold { trial, activations: 2, live: Some(13), near: Near::Sums(1e3) }.run(&|g, x| {
        let sum = add(g, x[0], x[1])?;
        Ok(vec![rms_norm(g, sum, x[2], EPS)?, sum])
    });
}
