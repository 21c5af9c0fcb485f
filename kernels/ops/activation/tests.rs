//! Activation functions and their gradients against f64.

use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::activation::{Activation, oracle};
use crate::testing::{
    Array, Trial, assert_close, forward, gradients, noise, numeric_gradient, wide,
};

const KINDS: [Activation; 3] = [Activation::Gelu, Activation::GeluErf, Activation::Silu];

fn values(n: usize) -> Vec<f32> {
    noise(1, n).iter().map(|x| x * 4.0).collect()
}

fn truth(kind: Activation, x: &[f64]) -> Vec<f64> {
    x.iter().map(|&x| oracle::value(kind, x)).collect()
}

#[test]
fn values_agree_with_f64() {
    for kind in KINDS {
        for n in [1, 3, 16, 101, 40_000] {
            let x = values(n.min(2000)).repeat(n.div_ceil(2000))[..n].to_vec();
            let inputs = [Array::f32(&[n], x.clone())];
            let got = forward(&inputs, &|g, x| Ok(vec![g.apply_one(kind, x)?])).unwrap();
            let few = n.min(2000);
            let (got, x) = (&got[0].floats()[n - few..], &x[n - few..]);
            assert_close(got, &truth(kind, &wide(x)), 1e-7, 3e-6, "y");
        }
    }
}

#[test]
fn gradients_agree_with_differences_of_the_oracle() {
    for kind in KINDS {
        let n = 57;
        let (x, dy) = (values(n), noise(2, n));
        let inputs = [Array::f32(&[n], x.clone())];
        let seed = [Array::f32(&[n], dy.clone())];
        let got = gradients(&inputs, &seed, &|g, x| Ok(vec![g.apply_one(kind, x)?])).unwrap();
        let f = |x: &[Vec<f64>]| truth(kind, &x[0]);
        let expected = numeric_gradient(&[wide(&x)], 0, &wide(&dy), &f);
        assert_close(got[0].floats(), &expected, 2e-6, 1e-5, "dx");
    }
}

#[test]
fn extremes_are_exact() {
    let x = vec![0.0, -0.0, 1e-42, 3e38, -3e38, f32::INFINITY];
    for kind in KINDS {
        let inputs = [Array::f32(&[6], x.clone())];
        let got = forward(&inputs, &|g, x| Ok(vec![g.apply_one(kind, x)?])).unwrap();
        let y = got[0].floats();
        assert!(y[0] == 0.0 && y[1] == 0.0 && (y[2] - 5e-43).abs() < 1e-44, "{kind:?} {y:?}");
        assert!(y[3] == 3e38 && y[4].abs() < 1e-30 && y[5] == f32::INFINITY, "{kind:?} {y:?}");
        let seed = [Array::f32(&[6], vec![1.0; 6])];
        let got = gradients(&inputs, &seed, &|g, x| Ok(vec![g.apply_one(kind, x)?])).unwrap();
        assert_eq!(got[0].floats()[3..5], [1.0, 0.0], "{kind:?}");
    }
}

#[test]
fn dead_rows_are_neither_read_nor_written() {
    let mut x = values(12);
    x[6..].fill(f32::NAN);
    let inputs = [Array::f32(&[4, 3], x), Array::i32(&[], vec![2])];
    for kind in KINDS {
        let trace = |g: &mut Graph<'_>, x: &[Tensor]| {
            let rows = g.with_live(x[0], x[1]);
            Ok(vec![g.apply_one(kind, &[rows])?])
        };
        let seed = [Array::f32(&[4, 3], vec![1.0; 12])];
        let (y, dx) =
            (forward(&inputs, &trace).unwrap(), gradients(&inputs, &seed, &trace).unwrap());
        for got in [&y[0], &dx[0]] {
            assert!(got.floats()[..6].iter().all(|x| x.is_finite()));
            assert!(got.floats()[6..].iter().all(|x| x.is_nan()));
        }
    }
}

#[test]
fn a_gpu_has_the_same_bits() {
    for (n, d) in [(1, 1), (9, 37), (300, 24)] {
        let x = noise(1, n * d).iter().map(|x| x * 4.0).collect();
        let inputs = [Array::f32(&[n, d], x)];
        let seeds = [Array::f32(&[n, d], noise(3, n * d))];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let hold = Hold { trial, activations: 1, live: Some(n.div_ceil(2)), near: Near::Bits };
        for function in [Activation::Gelu, Activation::GeluErf, Activation::Silu] {
            hold.run(&|g, x| Ok(vec![g.apply_one(function, &[x[0]])?]));
        }
    }
}
