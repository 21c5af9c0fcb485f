//! `l2_normalize` against f64: odd sizes, short, huge and dead rows.

use crate::dtype::DType;
use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::l2_normalize::{l2_normalize, oracle};
use crate::testing::{Array, Trial, assert_close, forward, noise, numeric_gradient, wide};

#[test]
fn rows_and_gradient_match_the_oracle_and_dead_rows_stay() {
    for (n, d, live, eps) in [(1, 1, 1, 1e-6), (7, 5, 4, 1e-6), (60, 300, 60, 1e-6), (9, 4, 9, 0.8)]
    {
        let (mut x, mut dy) = (noise(1, n * d), noise(2, n * d));
        x[live * d..].fill(f32::NAN);
        dy[live * d..].fill(f32::NAN);
        let inputs = [Array::f32(&[n, d], x.clone()), Array::i32(&[], vec![live as i32])];
        let seeds = [Array::f32(&[n, d], dy.clone())];
        let trace = |g: &mut Graph<'_>, x: &[Tensor]| {
            let x = g.with_live(x[0], x[1]);
            Ok(vec![l2_normalize(g, x, eps)?])
        };
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let got = trial.run(&trace).unwrap();
        let truth = [wide(&x[..live * d])];
        let f = |x: &[Vec<f64>]| oracle::forward(&x[0], f64::from(eps), d);
        let y = got.outputs[0].floats();
        assert_close(&y[..live * d], &f(&truth), 1e-7, 1e-6, "y");
        assert!(y[live * d..].iter().all(|y| y.is_nan()));
        let dx = got.gradients[0].floats();
        assert!(dx[live * d..].iter().all(|y| y.is_nan()));
        if n * d < 1000 {
            let expected = numeric_gradient(&truth, 0, &wide(&dy[..live * d]), &f);
            assert_close(&dx[..live * d], &expected, 2e-5, 2e-5, "dx");
        }
    }
}

#[test]
fn zeros_stay_zeros_and_huge_rows_do_not_overflow() {
    let x = vec![0.0, 0.0, 3e30, 4e30, 1e-30, 0.0];
    let inputs = [Array::f32(&[3, 2], x)];
    let seeds = [Array::f32(&[3, 2], vec![1.0; 6])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let got = trial.run(&|g, x| Ok(vec![l2_normalize(g, x[0], 0.5)?])).unwrap();
    assert_close(got.outputs[0].floats(), &[0.0, 0.0, 0.6, 0.8, 0.0, 0.0], 1e-7, 0.0, "y");
    assert_eq!(got.gradients[0].floats()[..2], [2.0, 2.0]);
    assert!(got.gradients[0].floats().iter().all(|x| x.is_finite()));
}

#[test]
fn narrow_rows_keep_their_dtype() {
    let inputs = [Array::Float(vec![1, 2], vec![3.0, 4.0], DType::Bf16)];
    let got = forward(&inputs, &|g, x| Ok(vec![l2_normalize(g, x[0], 1e-6)?])).unwrap();
    let rounded = |x: f32| half::bf16::from_f32(x).to_f32();
    assert_eq!(got[0], Array::Float(vec![1, 2], vec![rounded(0.6), rounded(0.8)], DType::Bf16));
}

#[test]
fn a_gpu_agrees() {
    for (n, d, eps) in [(1, 1, 1e-6), (37, 33, 0.8), (9, 300, 1e-6)] {
        let inputs = [Array::f32(&[n, d], noise(1, n * d))];
        let seeds = [Array::f32(&[n, d], noise(2, n * d))];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        for live in [None, Some(n.div_ceil(2))] {
            Hold { trial, activations: 1, live, near: Near::Sums(50.0) }
                .run(&|g, x| Ok(vec![l2_normalize(g, x[0], eps)?]));
        }
    }
}
