//! `mean_squared_error` against f64: shapes of any rank, dead rows.

use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::mean_squared_error::{mean_squared_error, oracle};
use crate::testing::{Array, Trial, assert_close, noise, numeric_gradient, wide};

#[test]
fn loss_and_gradients_match_the_oracle_and_dead_rows_stay() {
    let cases: [(&[usize], usize); 4] = [(&[1], 1), (&[7, 3], 4), (&[300, 101], 300), (&[3], 0)];
    for (shape, live) in cases {
        let elements: usize = shape.iter().product();
        let used = elements / shape[0] * live;
        let (mut a, mut b) = (noise(1, elements), noise(2, elements));
        a[used..].fill(f32::NAN);
        b[used..].fill(f32::NAN);
        let inputs = [
            Array::f32(shape, a.clone()),
            Array::f32(shape, b.clone()),
            Array::f32(&[], vec![0.5]),
            Array::i32(&[], vec![live as i32]),
        ];
        let seeds = [Array::f32(&[], vec![3.0])];
        let trace = |g: &mut Graph<'_>, x: &[Tensor]| {
            let (a, b) = (g.with_live(x[0], x[3]), g.with_live(x[1], x[3]));
            let (loss, sum) = mean_squared_error(g, a, b, x[2])?;
            Ok(vec![loss, sum])
        };
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let got = trial.run(&trace).unwrap();
        let x = [wide(&a[..used]), wide(&b[..used])];
        let sum = oracle::sum(&x[0], &x[1]);
        assert_close(got.outputs[0].floats(), &[0.5 * sum], 0.0, 1e-6, "loss");
        assert_close(got.outputs[1].floats(), &[sum], 0.0, 1e-6, "sum");
        let f = |x: &[Vec<f64>]| vec![oracle::sum(&x[0], &x[1])];
        for (i, what) in ["da", "db"].into_iter().enumerate() {
            let got = got.gradients[i].floats();
            if elements < 1000 {
                let expected = numeric_gradient(&x, i, &[1.5], &f);
                assert_close(&got[..used], &expected, 1e-5, 1e-5, what);
            }
            assert!(got[used..].iter().all(|x| x.is_nan()));
        }
        let exact = x[0].iter().zip(&x[1]).map(|(a, b)| 3.0 * (a - b));
        let expected: Vec<f64> = exact.collect();
        assert_close(&got.gradients[0].floats()[..used], &expected, 1e-6, 1e-6, "da");
    }
}

#[test]
fn a_gpu_agrees() {
    for (shape, live) in [(&[1, 1][..], None), (&[9, 3, 5], Some(4)), (&[20, 101], None)] {
        let elements = shape.iter().product();
        let inputs = [
            Array::f32(shape, noise(1, elements)),
            Array::f32(shape, noise(2, elements)),
            Array::f32(&[], vec![0.5]),
        ];
        let seeds = [Array::f32(&[], vec![3.0])];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        Hold { trial, activations: 2, live, near: Near::Sums(2e3) }.run(&|g, x| {
            let (loss, sum) = mean_squared_error(g, x[0], x[1], x[2])?;
            Ok(vec![loss, sum])
        });
    }
}
