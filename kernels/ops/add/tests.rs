//! `add` at odd sizes.

use crate::emulator::hold::{Hold, Near};
use crate::ops::add::add;
use crate::testing::{Array, Trial, forward, noise};

#[test]
fn adds_at_odd_sizes() {
    for n in [1, 3, 17, 64, 101] {
        let (a, b) = (noise(1, n), noise(2, n));
        let inputs = [Array::f32(&[n], a.clone()), Array::f32(&[n], b.clone())];
        let got = forward(&inputs, &|g, x| Ok(vec![add(g, x[0], x[1])?])).unwrap();
        let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        assert_eq!(got[0].floats(), expected);
    }
}

#[test]
fn a_gpu_has_the_same_bits() {
    for (n, d) in [(1, 1), (9, 37), (300, 24)] {
        let shape = [n, d];
        let inputs = [Array::f32(&shape, noise(1, n * d)), Array::f32(&shape, noise(2, n * d))];
        let seeds = [Array::f32(&shape, noise(3, n * d))];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        Hold { trial, activations: 2, live: None, near: Near::Bits }
            .run(&|g, x| Ok(vec![add(g, x[0], x[1])?]));
    }
}
