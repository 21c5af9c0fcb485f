//! Slices of columns and rows with their gradients, integers, dead rows.

use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::slice_columns::{slice_columns, slice_rows, split_columns};
use crate::testing::{Array, Trial, forward, noise};

#[test]
fn pieces_and_their_gradients_fit_together() {
    for (n, widths) in [(1, vec![1]), (5, vec![3, 1, 4]), (130, vec![64, 65])] {
        let columns: usize = widths.iter().sum();
        let x = noise(1, n * columns);
        let inputs = [Array::f32(&[n, columns], x.clone())];
        let seeds: Vec<Array> = (2..)
            .zip(&widths)
            .map(|(seed, &width)| Array::f32(&[n, width], noise(seed, n * width)))
            .collect();
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let got = trial.run(&|g, x| split_columns(g, x[0], &widths)).unwrap();
        let mut start = 0;
        for (piece, &width) in widths.iter().enumerate() {
            for row in 0..n {
                let columns = row * columns + start..row * columns + start + width;
                let own = row * width..(row + 1) * width;
                assert_eq!(got.outputs[piece].floats()[own.clone()], x[columns.clone()]);
                assert_eq!(got.gradients[0].floats()[columns], seeds[piece].floats()[own]);
            }
            start += width;
        }
    }
}

#[test]
fn columns_that_nobody_took_have_no_gradient() {
    let inputs = [Array::f32(&[2, 2, 3], noise(1, 12))];
    let seeds = [Array::f32(&[2, 2, 1], vec![1.0, 2.0, 3.0, 4.0])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let got = trial.run(&|g, x| Ok(vec![slice_columns(g, x[0], 1, 1)?])).unwrap();
    let expected = [0.0, 1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 3.0, 0.0, 0.0, 4.0, 0.0];
    assert_eq!(got.gradients[0].floats(), expected);
}

#[test]
fn rows_are_sliced_with_their_gradient_and_integers_too() {
    let inputs = [Array::f32(&[4, 2], noise(1, 8)), Array::i32(&[4], vec![5, 6, 7, 8])];
    let seeds = [Array::f32(&[2, 2], vec![1.0, 2.0, 3.0, 4.0])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let trace = |g: &mut Graph<'_>, x: &[Tensor]| {
        Ok(vec![slice_rows(g, x[0], 1, 2)?, slice_rows(g, x[1], 3, 1)?])
    };
    let got = trial.run(&trace).unwrap();
    assert_eq!(*got.outputs[0].floats(), noise(1, 8)[2..6]);
    assert_eq!(got.outputs[1], Array::i32(&[1], vec![8]));
    assert_eq!(got.gradients[0].floats(), [0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 0.0, 0.0]);
}

#[test]
fn dead_rows_are_neither_read_nor_written() {
    let inputs =
        [Array::f32(&[2, 2], vec![1.0, 2.0, f32::NAN, f32::NAN]), Array::i32(&[], vec![1])];
    let seeds = [Array::f32(&[2, 1], vec![4.0, f32::NAN])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let got = trial
        .run(&|g, x| {
            let x = g.with_live(x[0], x[1]);
            Ok(vec![slice_columns(g, x, 1, 1)?])
        })
        .unwrap();
    assert_eq!(got.outputs[0].floats()[0], 2.0);
    assert!(got.outputs[0].floats()[1].is_nan());
    assert_eq!(got.gradients[0].floats()[..2], [0.0, 4.0]);
    assert!(got.gradients[0].floats()[2].is_nan());
}

#[test]
fn pieces_that_do_not_cover_are_refused() {
    let inputs = [Array::f32(&[1, 3], vec![0.0; 3])];
    let error = forward(&inputs, &|g, x| split_columns(g, x[0], &[1, 1])).unwrap_err();
    assert_eq!(error.to_string(), "split_columns at : f32[1, 3] into columns of [1, 1]");
    let error = forward(&inputs, &|g, x| Ok(vec![slice_columns(g, x[0], 2, 2)?])).unwrap_err();
    assert_eq!(error.to_string(), "slice_columns at : columns 2+2 of f32[1, 3]");
}

#[test]
fn a_gpu_has_the_same_bits() {
    for (n, d, start, count) in [(1, 3, 1, 2), (300, 40, 8, 16), (9, 37, 0, 37)] {
        let inputs = [Array::f32(&[n, d], noise(1, n * d))];
        let seeds = [Array::f32(&[n, count], noise(2, n * count))];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        for live in [None, Some(n.div_ceil(2))] {
            let hold = Hold { trial, activations: 1, live, near: Near::Bits };
            hold.run(&|g, x| Ok(vec![slice_columns(g, x[0], start, count)?]));
        }
    }
    // Rows in rows, and integers.
    let words = Array::i32(&[4, 3, 5], (0..60).collect());
    let inputs = [Array::f32(&[4, 3, 5], noise(1, 60)), words];
    let trial = Trial { inputs: &inputs, ..Trial::default() };
    Hold { trial, activations: 1, live: None, near: Near::Bits }
        .run(&|g, x| Ok(vec![slice_columns(g, x[0], 2, 2)?, slice_columns(g, x[1], 1, 3)?]));
}
