//! `embedding` and its gradient at odd sizes, repeated tokens, bad tokens and dead rows.

use crate::emulator::hold::{Hold, Near};
use crate::graph::Graph;
use crate::ops::add::add;
use crate::ops::embedding::{embedding, oracle};
use crate::testing::{Array, Trial, assert_close, forward, gradients, noise, wide};

fn tokens(count: usize, rows: usize) -> Vec<i32> {
    (0..count).map(|i| (i * i * 7 % rows) as i32).collect()
}

#[test]
fn rows_are_looked_up() {
    for (n, v, d) in [(1, 1, 1), (5, 3, 7), (64, 50, 33), (300, 17, 129)] {
        let (ids, table) = (tokens(n, v), noise(1, v * d));
        let inputs = [Array::i32(&[n], ids.clone()), Array::f32(&[v, d], table.clone())];
        let got = forward(&inputs, &|g, x| Ok(vec![embedding(g, x[0], x[1])?])).unwrap();
        assert_eq!(wide(got[0].floats()), oracle::forward(&ids, &wide(&table), d));
    }
}

#[test]
fn the_gradient_adds_repeated_tokens_in_row_order() {
    for (n, v, d) in [(1, 1, 1), (5, 3, 7), (64, 50, 33), (300, 700, 129)] {
        let (ids, dy) = (tokens(n, v), noise(2, n * d));
        let inputs = [Array::i32(&[n], ids.clone()), Array::f32(&[v, d], noise(1, v * d))];
        let seed = [Array::f32(&[n, d], dy.clone())];
        let got = gradients(&inputs, &seed, &|g, x| Ok(vec![embedding(g, x[0], x[1])?])).unwrap();
        let expected = oracle::gradient(&ids, &wide(&dy), v, d);
        assert_close(got[0].floats(), &expected, 1e-4, 1e-6, "table");
    }
}

#[test]
fn a_table_used_twice_gathers_both_gradients() {
    let (n, v, d) = (9, 4, 5);
    let (ids, dy) = (tokens(n, v), noise(2, n * d));
    let inputs = [Array::i32(&[n], ids.clone()), Array::f32(&[v, d], noise(1, v * d))];
    let got = gradients(&inputs, &[Array::f32(&[n, d], dy.clone())], &|g, x| {
        let (a, b) = (embedding(g, x[0], x[1])?, embedding(g, x[0], x[1])?);
        Ok(vec![add(g, a, b)?])
    })
    .unwrap();
    let once = oracle::gradient(&ids, &wide(&dy), v, d);
    let twice: Vec<f64> = once.iter().map(|x| 2.0 * x).collect();
    assert_close(got[0].floats(), &twice, 1e-5, 1e-6, "table");
}

#[test]
fn tokens_outside_the_table_give_nan_and_no_gradient() {
    let inputs = [Array::i32(&[4], vec![1, -1, 2, i32::MAX]), Array::f32(&[2, 2], vec![1.0; 4])];
    let trace = |g: &mut Graph<'_>, x: &[_]| Ok(vec![embedding(g, x[0], x[1])?]);
    let got = forward(&inputs, &trace).unwrap();
    assert_eq!(got[0].floats()[..2], [1.0, 1.0]);
    assert!(got[0].floats()[2..].iter().all(|x| x.is_nan()));
    let seed = [Array::f32(&[4, 2], vec![3.0; 8])];
    let got = gradients(&inputs, &seed, &trace).unwrap();
    assert_eq!(got[0].floats(), [0.0, 0.0, 3.0, 3.0]);
}

#[test]
fn dead_rows_are_neither_read_nor_written() {
    let inputs = [
        Array::i32(&[4], vec![1, 0, 1, i32::MIN]),
        Array::f32(&[2, 2], vec![1.0, 2.0, 3.0, 4.0]),
        Array::i32(&[], vec![2]),
    ];
    let trace = |g: &mut Graph<'_>, x: &[_]| {
        let ids = g.with_live(x[0], x[2]);
        Ok(vec![embedding(g, ids, x[1])?])
    };
    let got = forward(&inputs, &trace).unwrap();
    assert_eq!(got[0].floats()[..4], [3.0, 4.0, 1.0, 2.0]);
    assert!(got[0].floats()[4..].iter().all(|x| x.is_nan()));
    let mut dy = vec![1.0; 8];
    dy[4..].fill(f32::NAN);
    let got = gradients(&inputs, &[Array::f32(&[4, 2], dy)], &trace).unwrap();
    assert_eq!(got[0].floats(), [1.0; 4]);
}

#[test]
fn wrong_operands_are_refused() {
    let inputs = [Array::f32(&[4], vec![0.0; 4]), Array::f32(&[2, 2], vec![0.0; 4])];
    let error = forward(&inputs, &|g, x| Ok(vec![embedding(g, x[0], x[1])?])).unwrap_err();
    assert_eq!(error.to_string(), "embedding at : tokens is f32[4], not i32[4]");
}

#[test]
fn a_gpu_has_the_same_bits() {
    for (n, v, d) in [(1, 1, 1), (300, 17, 33), (600, 200, 16)] {
        let mut ids = tokens(n, v);
        ids[n / 2] = -1;
        let inputs = [Array::i32(&[n], ids), Array::f32(&[v, d], noise(1, v * d))];
        let seeds = [Array::f32(&[n, d], noise(2, n * d))];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let trace = |g: &mut Graph<'_>, x: &[_]| Ok(vec![embedding(g, x[0], x[1])?]);
        Hold { trial, activations: 0, live: None, near: Near::Bits }.run(&trace);
        let inputs = [inputs[0].clone(), inputs[1].clone(), Array::i32(&[], vec![n as i32 / 2])];
        let trial = Trial { inputs: &inputs, ..trial };
        Hold { trial, activations: 0, live: None, near: Near::Bits }.run(&|g, x| {
            let ids = g.with_live(x[0], x[2]);
            Ok(vec![embedding(g, ids, x[1])?])
        });
    }
}
