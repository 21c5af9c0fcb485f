//! `kl_divergence` against f64: odd sizes, temperatures, forbidden classes, dead rows.

use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::kl_divergence::{kl_divergence, oracle};
use crate::testing::{Array, Trial, assert_close, forward, noise, numeric_gradient, wide};

#[test]
fn loss_and_gradient_match_the_oracle_and_dead_rows_stay() {
    for (n, v, live, temperature) in
        [(1, 1, 1, 1.0), (5, 7, 3, 2.0), (30, 33, 30, 0.5), (2, 300, 2, 1.0), (2, 2, 0, 1.0)]
    {
        let (mut student, mut teacher) = (noise(1, n * v), noise(2, n * v));
        student.iter_mut().for_each(|x| *x *= 3.0);
        teacher[0] = if v > 1 { f32::NEG_INFINITY } else { 0.0 };
        student[live * v..].fill(f32::NAN);
        teacher[live * v..].fill(f32::NAN);
        let inputs = [
            Array::f32(&[n, v], student.clone()),
            Array::f32(&[n, v], teacher.clone()),
            Array::f32(&[], vec![0.5]),
            Array::i32(&[], vec![live as i32]),
        ];
        let seeds = [Array::f32(&[], vec![3.0])];
        let trace = |g: &mut Graph<'_>, x: &[Tensor]| {
            let (student, teacher) = (g.with_live(x[0], x[3]), g.with_live(x[1], x[3]));
            let (loss, sum) = kl_divergence(g, student, teacher, temperature, x[2])?;
            Ok(vec![loss, sum])
        };
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let got = trial.run(&trace).unwrap();
        let (s, t) = ([wide(&student[..live * v])], wide(&teacher[..live * v]));
        let f = |x: &[Vec<f64>]| vec![oracle::sum(&x[0], &t, f64::from(temperature), v)];
        let sum = f(&s)[0];
        assert_close(got.outputs[0].floats(), &[0.5 * sum], 1e-5, 1e-6, "loss");
        assert_close(got.outputs[1].floats(), &[sum], 1e-5, 1e-6, "sum");
        let expected = numeric_gradient(&s, 0, &[1.5], &f);
        let dx = got.gradients[0].floats();
        assert_close(&dx[..live * v], &expected, 2e-6, 1e-5, "dstudent");
        assert!(dx[live * v..].iter().all(|x| x.is_nan()));
        assert!(got.gradients[1].floats().iter().all(|x| x.is_nan()), "the teacher learns");
    }
}

#[test]
fn equal_distributions_are_no_apart_and_a_missing_class_is_infinitely_far() {
    let far = vec![0.0, f32::NEG_INFINITY];
    for (student, expected) in [(vec![7.0, 7.0], 0.0), (far, f64::INFINITY)] {
        let inputs = [
            Array::f32(&[1, 2], student),
            Array::f32(&[1, 2], vec![1.0, 1.0]),
            Array::f32(&[], vec![1.0]),
        ];
        let got = forward(&inputs, &|g, x| Ok(vec![kl_divergence(g, x[0], x[1], 1.0, x[2])?.0]));
        assert_close(got.unwrap()[0].floats(), &[expected], 1e-7, 0.0, "loss");
    }
}

#[test]
fn a_gpu_agrees() {
    for (n, v, live, temperature) in [(1, 1, None, 1.0), (9, 33, Some(5), 0.5), (3, 300, None, 2.0)]
    {
        let mut teacher = noise(2, n * v);
        teacher[0] = if v > 1 { f32::NEG_INFINITY } else { 0.0 };
        let inputs = [
            Array::f32(&[n, v], noise(1, n * v)),
            Array::f32(&[n, v], teacher),
            Array::f32(&[], vec![0.5]),
        ];
        let seeds = [Array::f32(&[], vec![3.0])];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        Hold { trial, activations: 2, live, near: Near::Sums(2e3) }.run(&|g, x| {
            let (loss, sum) = kl_divergence(g, x[0], x[1], temperature, x[2])?;
            Ok(vec![loss, sum])
        });
    }
}
