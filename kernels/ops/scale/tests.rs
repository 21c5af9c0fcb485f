//! `scale` and its gradient, twice over one tensor, and with dead rows.

use crate::emulator::hold::{Hold, Near};
use crate::ops::add::add;
use crate::ops::scale::scale;
use crate::testing::{Array, Trial, noise};

#[test]
fn values_and_gradients_are_exact_and_add_up() {
    for n in [1, 5, 33_000] {
        let (x, dy) = (noise(1, n), noise(2, n));
        let inputs = [Array::f32(&[n], x.clone())];
        let seeds = [Array::f32(&[n], dy.clone())];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let got = trial.run(&|g, x| Ok(vec![scale(g, x[0], -0.3)?])).unwrap();
        let of = |x: &[f32], f: f32| x.iter().map(|x| x * f).collect::<Vec<f32>>();
        assert_eq!(got.outputs[0].floats(), of(&x, -0.3));
        assert_eq!(got.gradients[0].floats(), of(&dy, -0.3));
        let got = trial.run(&|g, x| {
            let (a, b) = (scale(g, x[0], 2.0)?, scale(g, x[0], 0.5)?);
            Ok(vec![add(g, a, b)?])
        });
        assert_eq!(got.unwrap().gradients[0].floats(), of(&dy, 2.5));
    }
}

#[test]
fn dead_rows_are_neither_read_nor_written() {
    let inputs = [Array::f32(&[3], vec![1.0, 2.0, f32::NAN]), Array::i32(&[], vec![2])];
    let seeds = [Array::f32(&[3], vec![1.0; 3])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let got = trial.run(&|g, x| {
        let rows = g.with_live(x[0], x[1]);
        Ok(vec![scale(g, rows, 2.0)?])
    });
    let got = got.unwrap();
    assert_eq!(got.outputs[0].floats()[..2], [2.0, 4.0]);
    assert_eq!(got.gradients[0].floats()[..2], [2.0, 2.0]);
    assert!(got.outputs[0].floats()[2].is_nan() && got.gradients[0].floats()[2].is_nan());
}

#[test]
fn a_gpu_has_the_same_bits() {
    let inputs = [Array::f32(&[300, 7], noise(1, 2100))];
    let seeds = [Array::f32(&[300, 7], noise(2, 2100))];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    for live in [None, Some(299)] {
        Hold { trial, activations: 1, live, near: Near::Bits }.run(&|g, x| {
            let (a, b) = (scale(g, x[0], 0.3)?, scale(g, x[0], -7.0)?);
            Ok(vec![add(g, a, b)?])
        });
    }
}
