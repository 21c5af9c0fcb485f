//! `multiply` and its gradients, also of a square, and with dead rows.

use crate::emulator::hold::{Hold, Near};
use crate::ops::multiply::multiply;
use crate::testing::{Array, Trial, forward, gradients, noise};

#[test]
fn products_and_gradients_are_exact() {
    for n in [1, 3, 17, 40_001] {
        let (a, b, dy) = (noise(1, n), noise(2, n), noise(3, n));
        let inputs = [Array::f32(&[n], a.clone()), Array::f32(&[n], b.clone())];
        let seeds = [Array::f32(&[n], dy.clone())];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let got = trial.run(&|g, x| Ok(vec![multiply(g, x[0], x[1])?])).unwrap();
        let of = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x * y).collect::<Vec<f32>>();
        assert_eq!(got.outputs[0].floats(), of(&a, &b));
        assert_eq!(got.gradients[0].floats(), of(&dy, &b));
        assert_eq!(got.gradients[1].floats(), of(&dy, &a));
    }
}

#[test]
fn a_square_gathers_both_gradients() {
    let inputs = [Array::f32(&[2], vec![3.0, -4.0])];
    let seeds = [Array::f32(&[2], vec![1.0, 10.0])];
    let got = gradients(&inputs, &seeds, &|g, x| Ok(vec![multiply(g, x[0], x[0])?])).unwrap();
    assert_eq!(got[0].floats(), [6.0, -80.0]);
}

#[test]
fn dead_rows_are_neither_read_nor_written() {
    let a = Array::f32(&[2, 2], vec![1.0, 2.0, f32::NAN, f32::NAN]);
    let inputs = [a, Array::f32(&[2, 2], vec![5.0; 4]), Array::i32(&[], vec![1])];
    let seeds = [Array::f32(&[2, 2], vec![1.0; 4])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let got = trial.run(&|g, x| {
        let rows = g.with_live(x[0], x[2]);
        Ok(vec![multiply(g, rows, x[1])?])
    });
    let got = got.unwrap();
    for (got, live) in [&got.outputs[0], &got.gradients[0], &got.gradients[1]].iter().zip([
        [5.0, 10.0],
        [5.0, 5.0],
        [1.0, 2.0],
    ]) {
        assert_eq!(got.floats()[..2], live);
        assert!(got.floats()[2..].iter().all(|x| x.is_nan()));
    }
}

#[test]
fn different_shapes_are_refused() {
    let inputs = [Array::f32(&[2], vec![0.0; 2]), Array::f32(&[3], vec![0.0; 3])];
    let error = forward(&inputs, &|g, x| Ok(vec![multiply(g, x[0], x[1])?])).unwrap_err();
    assert_eq!(error.to_string(), "multiply at : the first factor is f32[2], not a float [3]");
}

#[test]
fn a_gpu_has_the_same_bits() {
    let [a, b, dy] = [1, 2, 3].map(|seed| Array::f32(&[300, 7], noise(seed, 2100)));
    let (inputs, seeds) = ([a, b], [dy]);
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    for live in [None, Some(299)] {
        let hold = Hold { trial, activations: 2, live, near: Near::Bits };
        hold.run(&|g, x| Ok(vec![multiply(g, x[0], x[1])?]));
        hold.run(&|g, x| Ok(vec![multiply(g, x[0], x[0])?]));
    }
}
