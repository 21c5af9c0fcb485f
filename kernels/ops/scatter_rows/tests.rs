//! `scatter_rows` and its gradients: odd sizes, bad numbers, integers, dead rows.

use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::cast::cast;
use crate::ops::scatter_rows::scatter_rows;
use crate::testing::{Array, Trial, forward, noise};

fn trace(g: &mut Graph<'_>, x: &[Tensor]) -> crate::error::Result<Vec<Tensor>> {
    Ok(vec![scatter_rows(g, x[0], x[1], x[2])?])
}

#[test]
fn rows_are_replaced_and_gradients_split() {
    for (n, m, d) in [(1, 1, 1), (7, 3, 5), (300, 100, 129), (9, 9, 1), (5, 2, 3)] {
        let (x, values, dy) = (noise(1, n * d), noise(2, m * d), noise(3, n * d));
        let mut index: Vec<i32> = (0..m).map(|i| (n - 1 - i) as i32).collect();
        if m > 1 {
            index[m / 2] = -1;
        }
        let inputs = [
            Array::f32(&[n, d], x.clone()),
            Array::f32(&[m, d], values.clone()),
            Array::i32(&[m], index.clone()),
        ];
        let seeds = [Array::f32(&[n, d], dy.clone())];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let got = trial.run(&trace).unwrap();
        let (mut out, mut dx, mut dvalues) = (x, dy.clone(), vec![0.0; m * d]);
        for (i, &to) in index.iter().enumerate().filter(|(_, t)| **t >= 0) {
            let to = to as usize * d;
            out[to..to + d].copy_from_slice(&values[i * d..][..d]);
            dx[to..to + d].fill(0.0);
            dvalues[i * d..][..d].copy_from_slice(&dy[to..to + d]);
        }
        assert_eq!(got.outputs[0].floats(), out);
        assert_eq!(got.gradients[0].floats(), dx);
        assert_eq!(got.gradients[1].floats(), dvalues);
    }
}

#[test]
fn tokens_are_replaced_too() {
    let inputs = [
        Array::i32(&[5], vec![10, 11, 12, 13, 14]),
        Array::i32(&[3], vec![-7, 8, 9]),
        Array::i32(&[3], vec![4, 0, 5]),
    ];
    let got = forward(&inputs, &trace).unwrap();
    assert_eq!(got[0].ints(), [8, 11, 12, 13, -7]);
}

#[test]
fn dead_rows_are_neither_read_nor_written() {
    let inputs = [
        Array::f32(&[4, 2], vec![1.0, 2.0, 3.0, 4.0, f32::NAN, f32::NAN, f32::NAN, f32::NAN]),
        Array::f32(&[3, 2], vec![5.0, 6.0, 7.0, 8.0, f32::NAN, f32::NAN]),
        Array::i32(&[3], vec![1, 2, 0]),
        Array::i32(&[], vec![2]),
    ];
    let got = forward(&inputs, &|g, x| {
        let (a, v, i) = (g.with_live(x[0], x[3]), g.with_live(x[1], x[3]), g.with_live(x[2], x[3]));
        Ok(vec![scatter_rows(g, a, v, i)?])
    })
    .unwrap();
    assert_eq!(got[0].floats()[..4], [1.0, 2.0, 5.0, 6.0]);
    assert!(got[0].floats()[4..].iter().all(|x| x.is_nan()));
}

#[test]
fn rows_of_another_length_are_refused() {
    let inputs = [
        Array::f32(&[4, 2], vec![0.0; 8]),
        Array::f32(&[2, 3], vec![0.0; 6]),
        Array::i32(&[2], vec![0, 1]),
    ];
    let error = forward(&inputs, &trace).unwrap_err();
    assert_eq!(error.to_string(), "scatter_rows at : rows of f32[2, 3] into f32[4, 2]");
}

#[test]
fn a_gpu_has_the_same_bits() {
    for (n, m, d) in [(1, 1, 1), (300, 70, 33), (20, 9, 264)] {
        let mut index: Vec<i32> = (0..m).map(|i| (n - 1 - i) as i32).collect();
        if m > 1 {
            index[m / 2] = -1;
        }
        let [x, values] =
            [(1, n), (2, m)].map(|(s, rows)| Array::f32(&[rows, d], noise(s, rows * d)));
        let inputs = [x, values, Array::i32(&[m], index)];
        let seeds = [Array::f32(&[n, d], noise(3, n * d))];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        Hold { trial, activations: 2, live: None, near: Near::Bits }.run(&trace);
        Hold { trial, activations: 1, live: Some(n.div_ceil(2)), near: Near::Bits }.run(&|g, x| {
            // Storage of values follows that of x, whose cast is an activation.
            let values = cast(g, x[1], g.spec(x[0]).dtype)?;
            trace(g, &[x[0], values, x[2]])
        });
    }
}

#[test]
fn a_gpu_replaces_tokens() {
    let inputs = [
        Array::i32(&[5], vec![10, 11, 12, 13, 14]),
        Array::i32(&[3], vec![-7, 8, 9]),
        Array::i32(&[3], vec![4, 0, 5]),
    ];
    let trial = Trial { inputs: &inputs, ..Trial::default() };
    Hold { trial, activations: 0, live: None, near: Near::Bits }.run(&trace);
}
