//! The tangent and its gradient against f64.

use super::tanh;
use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::testing::{
    Array, Trial, assert_close, forward, gradients, noise, numeric_gradient, wide,
};

fn values(n: usize) -> Vec<f32> {
    noise(1, n).iter().map(|x| x * 4.0).collect()
}

#[test]
fn values_and_gradients_agree_with_f64() {
    for n in [1, 3, 57, 40_000] {
        let few = n.min(57);
        let x = values(few).repeat(n.div_ceil(few))[..n].to_vec();
        let trace = |g: &mut Graph<'_>, x: &[Tensor]| Ok(vec![tanh(g, x[0])?]);
        let inputs = [Array::f32(&[n], x.clone())];
        let got = forward(&inputs, &trace).unwrap();
        let truth: Vec<f64> = wide(&x[n - few..]).iter().map(|x| x.tanh()).collect();
        assert_close(&got[0].floats()[n - few..], &truth, 1e-7, 1e-6, "y");
        let dy = noise(2, n);
        let got = gradients(&inputs, &[Array::f32(&[n], dy.clone())], &trace).unwrap();
        let f = |x: &[Vec<f64>]| x[0].iter().map(|x| x.tanh()).collect();
        let (x, dy) = (wide(&x[n - few..]), wide(&dy[n - few..]));
        let expected = numeric_gradient(&[x], 0, &dy, &f);
        assert_close(&got[0].floats()[n - few..], &expected, 2e-6, 1e-5, "dx");
    }
}

#[test]
fn dead_rows_are_neither_read_nor_written() {
    let mut x = values(12);
    x[6..].fill(f32::NAN);
    let inputs = [Array::f32(&[4, 3], x), Array::i32(&[], vec![2])];
    let trace = |g: &mut Graph<'_>, x: &[Tensor]| {
        let rows = g.with_live(x[0], x[1]);
        Ok(vec![tanh(g, rows)?])
    };
    let seed = [Array::f32(&[4, 3], vec![1.0; 12])];
    let (y, dx) = (forward(&inputs, &trace).unwrap(), gradients(&inputs, &seed, &trace).unwrap());
    for got in [&y[0], &dx[0]] {
        assert!(got.floats()[..6].iter().all(|x| x.is_finite()));
        assert!(got.floats()[6..].iter().all(|x| x.is_nan()));
    }
}

#[test]
fn a_gpu_has_the_same_bits() {
    for (n, d) in [(1, 1), (300, 33), (20, 64)] {
        let inputs = [Array::f32(&[n, d], values(n * d))];
        let seeds = [Array::f32(&[n, d], noise(2, n * d))];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        for live in [None, Some(n.div_ceil(2))] {
            Hold { trial, activations: 1, live, near: Near::Bits }
                .run(&|g, x| Ok(vec![tanh(g, x[0])?]));
        }
    }
}
