//! `gather_rows` and its gradient: odd sizes, repeated and bad numbers, integers, dead rows.

use crate::dtype::DType;
use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::gather_rows::{gather_rows, oracle};
use crate::testing::{Array, Trial, assert_close, forward, gradients, noise, wide};

fn numbers(count: usize, rows: usize) -> Vec<i32> {
    (0..count).map(|i| (i * i * 5 + i) as i32 % (rows as i32 + 1) - i32::from(i % 3 == 0)).collect()
}

#[test]
fn rows_are_picked_and_gradients_added() {
    for (n, m, d) in [(1, 1, 1), (3, 5, 7), (50, 64, 33), (700, 300, 129), (4, 9, 1)] {
        let (x, index, dy) = (noise(1, n * d), numbers(m, n), noise(2, m * d));
        let inputs = [Array::f32(&[n, d], x.clone()), Array::i32(&[m], index.clone())];
        let seeds = [Array::f32(&[m, d], dy.clone())];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let got = trial.run(&|g, x| Ok(vec![gather_rows(g, x[0], x[1])?])).unwrap();
        assert_eq!(wide(got.outputs[0].floats()), oracle::forward(&wide(&x), &index, d));
        let expected = oracle::gradient(&index, &wide(&dy), n, d);
        assert_close(got.gradients[0].floats(), &expected, 1e-4, 1e-6, "dx");
        let alone = Trial { threads: 1, ..trial };
        assert_eq!(got, alone.run(&|g, x| Ok(vec![gather_rows(g, x[0], x[1])?])).unwrap());
    }
}

#[test]
fn integers_and_vectors_are_picked_too() {
    let inputs = [Array::i32(&[4], vec![7, -8, 9, 1 << 30]), Array::i32(&[3], vec![3, 1, 4])];
    let got = forward(&inputs, &|g, x| Ok(vec![gather_rows(g, x[0], x[1])?])).unwrap();
    assert_eq!(got[0], Array::i32(&[3], vec![1 << 30, -8, 0]));
}

#[test]
fn narrow_floats_keep_their_dtype() {
    let x = Array::Float(vec![2, 3], vec![1.0, -2.0, 0.5, 3.0, 4.0, 8.0], DType::Bf16);
    let inputs = [x, Array::i32(&[1], vec![1])];
    let got = forward(&inputs, &|g, x| Ok(vec![gather_rows(g, x[0], x[1])?])).unwrap();
    assert_eq!(got[0], Array::Float(vec![1, 3], vec![3.0, 4.0, 8.0], DType::Bf16));
}

#[test]
fn dead_rows_on_both_sides_are_neither_read_nor_written() {
    let mut x = noise(3, 5 * 2);
    x[3 * 2..].fill(f32::NAN);
    let inputs = [
        Array::f32(&[5, 2], x.clone()),
        Array::i32(&[4], vec![2, 3, 2, 0]),
        Array::i32(&[], vec![3]),
    ];
    let trace = |g: &mut Graph<'_>, x: &[Tensor]| {
        let (rows, index) = (g.with_live(x[0], x[2]), g.with_live(x[1], x[2]));
        Ok(vec![gather_rows(g, rows, index)?])
    };
    let got = forward(&inputs, &trace).unwrap();
    assert_eq!(got[0].floats()[..6], [x[4], x[5], 0.0, 0.0, x[4], x[5]]);
    assert!(got[0].floats()[6..].iter().all(|x| x.is_nan()));
    let mut dy = vec![1.0; 8];
    dy[6..].fill(f32::NAN);
    let got = gradients(&inputs, &[Array::f32(&[4, 2], dy)], &trace).unwrap();
    assert_eq!(got[0].floats()[..6], [0.0, 0.0, 0.0, 0.0, 2.0, 2.0]);
    assert!(got[0].floats()[6..].iter().all(|x| x.is_nan()));
}

#[test]
fn rows_of_a_reshaped_weight_are_picked() {
    let inputs = [Array::f32(&[2, 6], noise(1, 12)), Array::i32(&[2], vec![2, 2])];
    let seeds = [Array::f32(&[2, 3], vec![1.0, 2.0, 3.0, 10.0, 20.0, 30.0])];
    let got = gradients(&inputs, &seeds, &|g, x| {
        let rows = g.reshape(x[0], &[4, 3])?;
        Ok(vec![gather_rows(g, rows, x[1])?])
    });
    let expected = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 11.0, 22.0, 33.0, 0.0, 0.0, 0.0];
    assert_eq!(got.unwrap()[0].floats(), expected);
}

#[test]
fn wrong_operands_are_refused() {
    let inputs = [Array::f32(&[4], vec![0.0; 4]), Array::f32(&[2], vec![0.0; 2])];
    let error = forward(&inputs, &|g, x| Ok(vec![gather_rows(g, x[0], x[1])?])).unwrap_err();
    assert_eq!(error.to_string(), "gather_rows at : index is f32[2], not i32[2]");
}

#[test]
fn a_gpu_has_the_same_bits() {
    for (n, m, d) in [(1, 1, 1), (70, 600, 33), (20, 9, 264)] {
        let mut index = numbers(m, n);
        index[m / 2] = i32::MIN;
        let inputs = [Array::f32(&[n, d], noise(1, n * d)), Array::i32(&[m], index)];
        let seeds = [Array::f32(&[m, d], noise(2, m * d))];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let trace = |g: &mut Graph<'_>, x: &[Tensor]| Ok(vec![gather_rows(g, x[0], x[1])?]);
        for live in [None, Some(n.div_ceil(2))] {
            Hold { trial, activations: 1, live, near: Near::Bits }.run(&trace);
        }
        let few = Array::i32(&[], vec![m as i32 / 2]);
        let inputs = [inputs[0].clone(), inputs[1].clone(), few];
        let trial = Trial { inputs: &inputs, ..trial };
        Hold { trial, activations: 1, live: None, near: Near::Bits }.run(&|g, x| {
            let index = g.with_live(x[1], x[2]);
            Ok(vec![gather_rows(g, x[0], index)?])
        });
    }
}

#[test]
fn a_gpu_picks_integers() {
    let inputs =
        [Array::i32(&[9], (0..9).map(|i| i << 26).collect()), Array::i32(&[4], vec![8, 0, 9, 3])];
    let trial = Trial { inputs: &inputs, ..Trial::default() };
    Hold { trial, activations: 0, live: None, near: Near::Bits }
        .run(&|g, x| Ok(vec![gather_rows(g, x[0], x[1])?]));
}
