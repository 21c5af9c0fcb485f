//! Joins of columns and rows with their gradients, integers, dead rows.

use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::concat_columns::{concat_columns, concat_rows};
use crate::testing::{Array, Trial, forward, noise};

#[test]
fn columns_join_and_gradients_part() {
    for (n, widths) in [(1, vec![1]), (5, vec![3, 1, 4]), (130, vec![64, 65])] {
        let columns: usize = widths.iter().sum();
        let inputs: Vec<Array> = (2..)
            .zip(&widths)
            .map(|(seed, &width)| Array::f32(&[n, width], noise(seed, n * width)))
            .collect();
        let dy = noise(1, n * columns);
        let seeds = [Array::f32(&[n, columns], dy.clone())];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let got = trial.run(&|g, x| Ok(vec![concat_columns(g, x)?])).unwrap();
        let mut start = 0;
        for (piece, &width) in widths.iter().enumerate() {
            for row in 0..n {
                let columns = row * columns + start..row * columns + start + width;
                let own = row * width..(row + 1) * width;
                let x = &inputs[piece].floats()[own.clone()];
                assert_eq!(got.outputs[0].floats()[columns.clone()], *x);
                assert_eq!(got.gradients[piece].floats()[own], dy[columns]);
            }
            start += width;
        }
    }
}

#[test]
fn the_same_matrix_twice_gathers_both_gradients() {
    let inputs = [Array::f32(&[1, 2], vec![1.0, 2.0])];
    let seeds = [Array::f32(&[1, 4], vec![1.0, 2.0, 10.0, 20.0])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let got = trial.run(&|g, x| Ok(vec![concat_columns(g, &[x[0], x[0]])?])).unwrap();
    assert_eq!(got.gradients[0].floats(), [11.0, 22.0]);
}

#[test]
fn rows_join_and_integers_too() {
    let inputs = [
        Array::f32(&[2, 2], vec![1.0, 2.0, 3.0, 4.0]),
        Array::f32(&[1, 2], vec![5.0, 6.0]),
        Array::i32(&[1], vec![-7]),
        Array::i32(&[2], vec![8, 9]),
    ];
    let seeds = [Array::f32(&[3, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let trace = |g: &mut Graph<'_>, x: &[Tensor]| {
        Ok(vec![concat_rows(g, &x[..2])?, concat_rows(g, &x[2..])?])
    };
    let got = trial.run(&trace).unwrap();
    assert_eq!(got.outputs[0].floats(), seeds[0].floats());
    assert_eq!(got.outputs[1], Array::i32(&[3], vec![-7, 8, 9]));
    assert_eq!(got.gradients[0].floats(), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(got.gradients[1].floats(), [5.0, 6.0]);
}

#[test]
fn dead_rows_are_neither_read_nor_written() {
    let nan = f32::NAN;
    let inputs = [
        Array::f32(&[2, 1], vec![1.0, nan]),
        Array::f32(&[2, 1], vec![2.0, nan]),
        Array::i32(&[], vec![1]),
    ];
    let got = forward(&inputs, &|g, x| {
        let b = g.with_live(x[1], x[2]);
        Ok(vec![concat_columns(g, &[x[0], b])?])
    });
    let got = got.unwrap();
    assert_eq!(got[0].floats()[..2], [1.0, 2.0]);
    assert!(got[0].floats()[2..].iter().all(|x| x.is_nan()));
}

#[test]
fn unlike_matrices_are_refused() {
    let inputs = [Array::f32(&[2, 1], vec![0.0; 2]), Array::f32(&[1, 1], vec![0.0])];
    let error = forward(&inputs, &|g, x| Ok(vec![concat_columns(g, x)?])).unwrap_err();
    assert_eq!(error.to_string(), "concat_columns at : f32[1, 1] beside f32[2, 1]");
}

#[test]
fn a_gpu_has_the_same_bits() {
    for (n, widths) in [(1, [3, 1]), (300, [16, 24]), (9, [37, 8])] {
        let input = |i: usize| Array::f32(&[n, widths[i]], noise(i as u64, n * widths[i]));
        let inputs = [input(0), input(1)];
        let columns = widths.iter().sum::<usize>();
        let seeds = [Array::f32(&[n, columns], noise(2, n * columns))];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        for live in [None, Some(n.div_ceil(2))] {
            let hold = Hold { trial, activations: 2, live, near: Near::Bits };
            hold.run(&|g, x| Ok(vec![concat_columns(g, &[x[0], x[1]])?]));
        }
    }
}
