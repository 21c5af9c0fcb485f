//! `binary_cross_entropy` against f64: odd sizes, ignored and dead elements, large logits.

use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::binary_cross_entropy::{binary_cross_entropy, oracle};
use crate::testing::{Array, Trial, assert_close, gradients, noise, numeric_gradient, wide};

fn trace(g: &mut Graph<'_>, x: &[Tensor]) -> crate::error::Result<Vec<Tensor>> {
    let (loss, sum, targets) = binary_cross_entropy(g, x[0], x[1], x[2])?;
    Ok(vec![loss, sum, targets])
}

#[test]
fn loss_and_gradient_match_the_oracle() {
    for n in [1, 2, 17, 300] {
        let logits: Vec<f32> = noise(n as u64, n).iter().map(|x| x * 5.0).collect();
        let labels: Vec<i32> = (0..n).map(|i| (i * 7 % 3) as i32 - i32::from(n > 1)).collect();
        let inputs = [
            Array::f32(&[n], logits.clone()),
            Array::i32(&[n], labels.clone()),
            Array::f32(&[], vec![0.25]),
        ];
        let seeds = [Array::f32(&[], vec![3.0])];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let got = trial.run(&trace).unwrap();
        let sum = oracle::sum(&wide(&logits), &labels);
        assert_close(got.outputs[0].floats(), &[0.25 * sum], 1e-7, 1e-6, "loss");
        assert_close(got.outputs[1].floats(), &[sum], 1e-7, 1e-6, "sum");
        let targets = labels.iter().filter(|l| **l >= 0).count();
        assert_eq!(got.outputs[2].ints(), [targets as i32]);
        let f = |x: &[Vec<f64>]| vec![oracle::sum(&x[0], &labels)];
        let expected = numeric_gradient(&[wide(&logits)], 0, &[0.75], &f);
        assert_close(got.gradients[0].floats(), &expected, 1e-6, 1e-5, "dlogits");
    }
}

#[test]
fn huge_logits_stay_finite_and_ignored_ones_are_not_read() {
    let inputs = [
        Array::f32(&[4], vec![1000.0, -1000.0, f32::NAN, 1000.0]),
        Array::i32(&[4], vec![0, 0, -1, 1]),
        Array::f32(&[], vec![1.0]),
    ];
    let seeds = [Array::f32(&[], vec![1.0])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let got = trial.run(&trace).unwrap();
    assert_eq!(got.outputs[1].floats(), [1000.0]);
    assert_eq!(got.outputs[2].ints(), [3]);
    assert_eq!(got.gradients[0].floats(), [1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn dead_elements_and_no_elements_at_all() {
    for live in [0, 2] {
        let inputs = [
            Array::f32(&[3], vec![0.0, 0.0, f32::NAN]),
            Array::i32(&[3], vec![1, 0, 1]),
            Array::f32(&[], vec![1.0]),
            Array::i32(&[], vec![live]),
        ];
        let got = gradients(&inputs, &[Array::f32(&[], vec![1.0])], &|g, x| {
            let logits = g.with_live(x[0], x[3]);
            trace(g, &[logits, x[1], x[2]])
        })
        .unwrap();
        let dx = got[0].floats();
        assert_eq!(dx[..live as usize], [-0.5, 0.5][..live as usize]);
        assert!(dx[live as usize..].iter().all(|x| x.is_nan()));
    }
}

#[test]
fn a_gpu_agrees() {
    for (n, live) in [(1, None), (17, None), (300, Some(270))] {
        let logits: Vec<f32> = noise(n as u64, n).iter().map(|x| x * 5.0).collect();
        let labels = (0..n).map(|i| (i * 7 % 3) as i32 - i32::from(n > 1)).collect();
        let inputs =
            [Array::f32(&[n], logits), Array::i32(&[n], labels), Array::f32(&[], vec![0.25])];
        let seeds = [Array::f32(&[], vec![3.0])];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        Hold { trial, activations: 1, live, near: Near::Bits }.run(&trace);
    }
}
