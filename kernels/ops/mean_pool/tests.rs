//! `mean_pool` against f64: with and without a mask, empty, masked and dead sequences.

use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::mean_pool::{mean_pool, oracle};
use crate::testing::{Array, Trial, assert_close, forward, noise, numeric_gradient, wide};

#[test]
fn means_and_gradient_match_the_oracle() {
    for (b, t, d, masked) in
        [(1, 1, 1, false), (3, 5, 7, false), (4, 9, 3, true), (20, 33, 65, true)]
    {
        let (mut x, dy) = (noise(1, b * t * d), noise(2, b * d));
        // The last sequence is all masked.
        let set = |i: usize| !masked || (i / t + 1 < b && i % 3 != 1);
        let mask: Vec<i32> = (0..b * t).map(|i| i32::from(set(i)) * 2).collect();
        for (row, _) in mask.iter().enumerate().filter(|(_, m)| **m == 0) {
            x[row * d..(row + 1) * d].fill(f32::NAN);
        }
        let inputs = [Array::f32(&[b * t, d], x.clone()), Array::i32(&[b * t], mask.clone())];
        let seeds = [Array::f32(&[b, d], dy.clone())];
        let trace = |g: &mut Graph<'_>, x: &[Tensor]| {
            Ok(vec![mean_pool(g, x[0], t, masked.then_some(x[1]))?])
        };
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let got = trial.run(&trace).unwrap();
        let f = |x: &[Vec<f64>]| oracle::forward(&x[0], &mask, t, d);
        let truth = [wide(&x)];
        assert_close(got.outputs[0].floats(), &f(&truth), 1e-6, 1e-6, "y");
        if b * t * d < 1000 {
            let finite = truth[0].iter().map(|x| if x.is_nan() { 0.0 } else { *x }).collect();
            let expected = numeric_gradient(&[finite], 0, &wide(&dy), &f);
            assert_close(got.gradients[0].floats(), &expected, 1e-6, 1e-5, "dx");
        }
    }
}

#[test]
fn dead_sequences_are_neither_read_nor_written() {
    let (mut x, mut dy) = (vec![1.0; 12], vec![3.0; 6]);
    x[8..].fill(f32::NAN);
    dy[4..].fill(f32::NAN);
    let inputs = [Array::f32(&[3, 2, 2], x), Array::i32(&[], vec![2])];
    let seeds = [Array::f32(&[3, 2], dy)];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let got = trial
        .run(&|g, x| {
            let x = g.with_live(x[0], x[1]);
            Ok(vec![mean_pool(g, x, 2, None)?])
        })
        .unwrap();
    assert_eq!(got.outputs[0].floats()[..4], [1.0; 4]);
    assert!(got.outputs[0].floats()[4..].iter().all(|y| y.is_nan()));
    assert_eq!(got.gradients[0].floats()[..8], [1.5; 8]);
    assert!(got.gradients[0].floats()[8..].iter().all(|y| y.is_nan()));
}

#[test]
fn rows_that_are_no_whole_sequences_are_refused() {
    let inputs = [Array::f32(&[5, 2], vec![0.0; 10])];
    let error = forward(&inputs, &|g, x| Ok(vec![mean_pool(g, x[0], 2, None)?])).unwrap_err();
    assert_eq!(error.to_string(), "reshape at : f32[5, 2] into [2, 2, 2]");
}

#[test]
fn a_gpu_has_the_same_bits() {
    for (b, t, d, masked) in [(1, 1, 1, false), (5, 300, 9, true), (3, 7, 40, false)] {
        // The last sequence is all masked.
        let mask = (0..b * t).map(|i| i32::from(i / t + 1 < b && i % 3 != 1) * 2).collect();
        let inputs = [Array::f32(&[b, t, d], noise(1, b * t * d)), Array::i32(&[b, t], mask)];
        let seeds = [Array::f32(&[b, d], noise(2, b * d))];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        for live in [None, Some(b.div_ceil(2))] {
            Hold { trial, activations: 1, live, near: Near::Bits }
                .run(&|g, x| Ok(vec![mean_pool(g, x[0], t, masked.then_some(x[1]))?]));
        }
    }
}
