//! `linear` and its gradients at odd sizes, with cancellation, dead rows and a weight used twice.

use crate::emulator::hold::{Hold, Near};
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::activation::gelu;
use crate::ops::linear::{linear, oracle};
use crate::testing::{
    Array, Trial, assert_close, forward, gradients, noise, numeric_gradient, wide,
};

const SIZES: [[usize; 3]; 6] =
    [[1, 1, 1], [1, 7, 3], [5, 1, 9], [17, 33, 65], [64, 128, 100], [70, 400, 31]];

fn inputs([n, i, o]: [usize; 3]) -> Vec<Array> {
    vec![
        Array::f32(&[n, i], noise(1, n * i)),
        Array::f32(&[o, i], noise(2, o * i)),
        Array::f32(&[o], noise(3, o)),
    ]
}

fn trace(g: &mut Graph<'_>, x: &[Tensor]) -> Result<Vec<Tensor>> {
    Ok(vec![linear(g, x[0], x[1], Some(x[2]))?])
}

fn widened(inputs: &[Array]) -> Vec<Vec<f64>> {
    inputs.iter().map(|x| wide(x.floats())).collect()
}

#[test]
fn products_agree_with_f64() {
    for size in SIZES {
        let inputs = inputs(size);
        let x = widened(&inputs);
        let got = forward(&inputs, &trace).unwrap();
        let expected = oracle::forward(&x[0], &x[1], &x[2], size[1]);
        assert_close(got[0].floats(), &expected, 1e-4, 1e-5, "y");
        let got = forward(&inputs, &|g, x| Ok(vec![linear(g, x[0], x[1], None)?])).unwrap();
        let expected = oracle::forward(&x[0], &x[1], &[], size[1]);
        assert_close(got[0].floats(), &expected, 1e-4, 1e-5, "y without a bias");
    }
}

#[test]
fn gradients_agree_with_f64() {
    for [n, i, o] in SIZES {
        let inputs = inputs([n, i, o]);
        let dy = noise(4, n * o);
        let got = gradients(&inputs, &[Array::f32(&[n, o], dy.clone())], &trace).unwrap();
        let (x, w, dy) = (wide(inputs[0].floats()), wide(inputs[1].floats()), wide(&dy));
        let turned = |x: &[f64], columns: usize| -> Vec<f64> {
            (0..columns).flat_map(|c| x.chunks(columns).map(move |row| row[c])).collect()
        };
        let dx = oracle::forward(&dy, &turned(&w, i), &[], o);
        let dw = oracle::forward(&turned(&dy, o), &turned(&x, i), &[], n);
        let db = oracle::forward(&turned(&dy, o), &vec![1.0; n], &[], n);
        for (got, (expected, what)) in got.iter().zip([(dx, "dx"), (dw, "dw"), (db, "db")]) {
            assert_close(got.floats(), &expected, 1e-4, 1e-5, what);
        }
    }
}

#[test]
fn the_rule_agrees_with_differences_of_the_oracle() {
    let size = [3, 5, 4];
    let (inputs, dy) = (inputs(size), noise(4, 12));
    let got = gradients(&inputs, &[Array::f32(&[3, 4], dy.clone())], &trace).unwrap();
    let f = |x: &[Vec<f64>]| oracle::forward(&x[0], &x[1], &x[2], 5);
    for (i, got) in got.iter().enumerate() {
        let expected = numeric_gradient(&widened(&inputs), i, &wide(&dy), &f);
        assert_close(got.floats(), &expected, 1e-4, 1e-5, "gradient");
    }
}

#[test]
fn a_weight_used_twice_gathers_both_gradients() {
    let (n, d) = (6, 5);
    let inputs = inputs([n, d, d]);
    let dy = noise(4, n * d);
    let twice = |g: &mut Graph<'_>, x: &[Tensor]| {
        let y = linear(g, x[0], x[1], Some(x[2]))?;
        Ok(vec![linear(g, y, x[1], Some(x[2]))?])
    };
    let got = gradients(&inputs, &[Array::f32(&[n, d], dy.clone())], &twice).unwrap();
    let f = |x: &[Vec<f64>]| {
        let y = oracle::forward(&x[0], &x[1], &x[2], d);
        oracle::forward(&y, &x[1], &x[2], d)
    };
    for (i, got) in got.iter().enumerate() {
        let expected = numeric_gradient(&widened(&inputs), i, &wide(&dy), &f);
        assert_close(got.floats(), &expected, 2e-3, 1e-5, "gradient");
    }
}

#[test]
fn cancellation_is_within_the_sum_of_sizes() {
    // Rows that cancel to nearly nothing: the error is bounded by the terms, not by the sum.
    let k = 1000;
    let half = noise(1, k / 2);
    let x: Vec<f32> = half.iter().flat_map(|x| [x * 1e4, -x * 1e4]).collect();
    let inputs = [Array::f32(&[1, k], x.clone()), Array::f32(&[1, k], vec![1.0; k])];
    let got = forward(&inputs, &|g, x| Ok(vec![linear(g, x[0], x[1], None)?])).unwrap();
    let size: f64 = x.iter().map(|x| f64::from(x.abs())).sum();
    assert!(f64::from(got[0].floats()[0].abs()) <= 4.0 * f64::from(f32::EPSILON) * size);
}

#[test]
fn dead_rows_are_neither_read_nor_written() {
    let [n, i, o] = [5, 7, 3];
    for live in [0, 2] {
        let mut inputs = inputs([n, i, o]);
        let expected = forward(&inputs, &trace).unwrap();
        let Array::Float(_, data, _) = &mut inputs[0] else { unreachable!("x is a float") };
        data[live * i..].fill(f32::NAN);
        inputs.push(Array::i32(&[], vec![live as i32]));
        let partly = |g: &mut Graph<'_>, x: &[Tensor]| {
            let rows = g.with_live(x[0], x[3]);
            trace(g, &[rows, x[1], x[2]])
        };
        let got = forward(&inputs, &partly).unwrap();
        assert_eq!(got[0].floats()[..live * o], expected[0].floats()[..live * o]);
        assert!(got[0].floats()[live * o..].iter().all(|x| x.is_nan()));
        let mut dy = noise(4, n * o);
        dy[live * o..].fill(f32::NAN);
        let got = gradients(&inputs, &[Array::f32(&[n, o], dy)], &partly).unwrap();
        assert!(got[0].floats()[..live * i].iter().all(|x| x.is_finite()));
        assert!(got[0].floats()[live * i..].iter().all(|x| x.is_nan()));
        assert!(got[1].floats().iter().chain(got[2].floats()).all(|x| x.is_finite()));
    }
}

#[test]
fn wrong_operands_are_refused() {
    let inputs = [Array::f32(&[2, 3], vec![0.0; 6]), Array::f32(&[2, 4], vec![0.0; 8])];
    let error = forward(&inputs, &|g, x| Ok(vec![linear(g, x[0], x[1], None)?])).unwrap_err();
    let what = "x is f32[2, 3], the weight f32[2, 4]: rows of different lengths";
    assert_eq!(error.to_string(), format!("linear at : {what}"));
}

/// Small and large tiles, more of them than the ring holds, rows that copies cannot align.
const TILED: [[usize; 3]; 4] = [[1, 7, 3], [70, 200, 72], [130, 104, 136], [33, 65, 130]];

#[test]
fn a_gpu_agrees() {
    for [n, i, o] in TILED {
        let inputs = inputs([n, i, o]);
        let seeds = [Array::f32(&[n, o], noise(4, n * o))];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        // Σ|a b| of the longest sum: outliers of 30 among some hundred terms below 1.
        let hold = Hold { trial, activations: 1, live: None, near: Near::Sums(2e3) };
        hold.run(&trace);
        if n == 70 {
            hold.run(&|g, x| {
                let y = linear(g, x[0], x[1], Some(x[2]))?;
                Ok(vec![gelu(g, y)?])
            });
        }
    }
}

#[test]
fn a_gpu_stops_at_the_live_rows() {
    let [n, i, o] = [90, 40, 24];
    let inputs = inputs([n, i, o]);
    let seeds = [Array::f32(&[n, o], noise(4, n * o))];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    Hold { trial, activations: 1, live: Some(37), near: Near::Sums(1e3) }.run(&trace);
}
