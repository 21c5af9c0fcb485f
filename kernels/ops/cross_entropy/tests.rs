//! `cross_entropy` against f64: odd sizes, ignored rows, minus infinity, dead rows.

use crate::dtype::DType;
use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::cross_entropy::{cross_entropy, oracle};
use crate::testing::{Array, Trial, assert_close, noise, numeric_gradient, wide};

fn trace(g: &mut Graph<'_>, x: &[Tensor]) -> crate::error::Result<Vec<Tensor>> {
    let (loss, sum, targets) = cross_entropy(g, x[0], x[1], x[2])?;
    Ok(vec![loss, sum, targets])
}

#[test]
fn loss_and_gradient_match_the_oracle() {
    for (n, v) in [(1, 1), (3, 7), (65, 33), (5, 300)] {
        let logits: Vec<f32> = noise(v as u64, n * v).iter().map(|x| x * 4.0).collect();
        let labels: Vec<i32> =
            (0..n).map(|i| if i % 4 == 2 { -1 } else { (i * 5 % v) as i32 }).collect();
        let inputs = [
            Array::f32(&[n, v], logits.clone()),
            Array::i32(&[n], labels.clone()),
            Array::f32(&[], vec![0.5]),
        ];
        let seeds = [Array::f32(&[], vec![3.0])];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let got = trial.run(&trace).unwrap();
        let sum = oracle::sum(&wide(&logits), &labels, v);
        assert_close(got.outputs[0].floats(), &[0.5 * sum], 1e-6, 1e-6, "loss");
        assert_close(got.outputs[1].floats(), &[sum], 1e-6, 1e-6, "sum");
        let targets = labels.iter().filter(|l| **l >= 0).count();
        assert_eq!(got.outputs[2].ints(), [targets as i32]);
        let f = |x: &[Vec<f64>]| vec![oracle::sum(&x[0], &labels, v)];
        let expected = numeric_gradient(&[wide(&logits)], 0, &[1.5], &f);
        assert_close(got.gradients[0].floats(), &expected, 2e-6, 1e-5, "dlogits");
        let alone = Trial { threads: 1, ..trial }.run(&trace).unwrap();
        assert_eq!((&got.outputs, &got.gradients[0]), (&alone.outputs, &alone.gradients[0]));
    }
}

/// A row with a class that is forbidden, and one that is ignored.
fn forbidden_and_ignored() -> [Array; 3] {
    [
        Array::f32(&[2, 3], vec![1.0, f32::NEG_INFINITY, 1.0, f32::NAN, 0.0, 0.0]),
        Array::i32(&[2], vec![2, -1]),
        Array::f32(&[], vec![1.0]),
    ]
}

#[test]
fn forbidden_classes_have_no_gradient_and_ignored_rows_are_not_read() {
    let inputs = forbidden_and_ignored();
    let seeds = [Array::f32(&[], vec![1.0])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let got = trial.run(&trace).unwrap();
    assert_close(got.outputs[1].floats(), &[2f64.ln()], 1e-7, 0.0, "sum");
    assert_eq!(got.gradients[0].floats(), [0.5, 0.0, -0.5, 0.0, 0.0, 0.0]);
}

#[test]
fn bf16_logits_are_widened() {
    let inputs = [
        Array::Float(vec![1, 2], vec![0.5, 0.5], DType::Bf16),
        Array::i32(&[1], vec![0]),
        Array::f32(&[], vec![1.0]),
    ];
    let seeds = [Array::f32(&[], vec![1.0])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let got = trial.run(&trace).unwrap();
    assert_close(got.outputs[0].floats(), &[2f64.ln()], 1e-7, 0.0, "loss");
    assert_eq!(got.gradients[0].floats(), [-0.5, 0.5]);
}

#[test]
fn dead_rows_are_neither_read_nor_written() {
    for live in [0, 1] {
        let inputs = [
            Array::f32(&[2, 2], vec![0.0, 0.0, f32::NAN, f32::NAN]),
            Array::i32(&[2], vec![1, 99]),
            Array::f32(&[], vec![1.0]),
            Array::i32(&[], vec![live]),
        ];
        let seeds = [Array::f32(&[], vec![1.0])];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let got = trial
            .run(&|g, x| {
                let logits = g.with_live(x[0], x[3]);
                trace(g, &[logits, x[1], x[2]])
            })
            .unwrap();
        assert_eq!(got.outputs[2].ints(), [live]);
        assert!(got.outputs[0].floats()[0].is_finite());
        let dx = got.gradients[0].floats();
        assert_eq!(dx[..2 * live as usize], [0.5, -0.5][..2 * live as usize]);
        assert!(dx[2 * live as usize..].iter().all(|x| x.is_nan()));
    }
}

#[test]
fn a_gpu_agrees() {
    for (n, v, live) in [(1, 1, None), (9, 33, None), (21, 300, Some(13))] {
        let logits: Vec<f32> = noise(v as u64, n * v).iter().map(|x| x * 4.0).collect();
        let labels = (0..n).map(|i| if i % 4 == 2 { -1 } else { (i * 5 % v) as i32 }).collect();
        let inputs =
            [Array::f32(&[n, v], logits), Array::i32(&[n], labels), Array::f32(&[], vec![0.5])];
        let seeds = [Array::f32(&[], vec![3.0])];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        Hold { trial, activations: 1, live, near: Near::Sums(1e2) }.run(&trace);
    }
}

#[test]
fn a_gpu_forbids_classes_and_reads_no_ignored_row() {
    let inputs = forbidden_and_ignored();
    let seeds = [Array::f32(&[], vec![1.0])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    Hold { trial, activations: 1, live: None, near: Near::Sums(1.0) }.run(&trace);
}
