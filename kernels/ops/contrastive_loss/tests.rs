//! `contrastive_loss` against f64: odd groups, several blocks, a frozen side, dead rows.

use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Policy, Program, Target, Tensor};
use crate::ops::contrastive_loss::{contrastive_loss, oracle};
use crate::testing::{Array, Outcome, Trial, assert_close, noise, numeric_gradient, wide};

fn trace(g: &mut Graph<'_>, x: &[Tensor]) -> crate::error::Result<Vec<Tensor>> {
    let (loss, sum) = contrastive_loss(g, x[0], x[1], x[2], x[3])?;
    Ok(vec![loss, sum])
}

fn operands(group: usize, columns: usize, log_scale: f32) -> Vec<Array> {
    vec![
        Array::f32(&[group, columns], noise(1, group * columns)),
        Array::f32(&[group, columns], noise(2, group * columns)),
        Array::f32(&[], vec![log_scale]),
        Array::f32(&[], vec![0.25]),
    ]
}

fn backward(inputs: &[Array], threads: usize) -> Outcome {
    let seeds = [Array::f32(&[], vec![2.0])];
    Trial { inputs, seeds: Some(&seeds), threads, ..Trial::default() }.run(&trace).unwrap()
}

#[test]
fn loss_and_gradients_match_the_oracle() {
    for (group, columns, log_scale) in [(1, 1, 0.0), (3, 5, 0.7), (17, 8, -0.5), (131, 3, 0.2)] {
        let inputs = operands(group, columns, log_scale);
        let got = backward(&inputs, 2);
        let x: Vec<Vec<f64>> = inputs[..3].iter().map(|x| wide(x.floats())).collect();
        let f = |x: &[Vec<f64>]| vec![oracle::sum(&x[0], &x[1], x[2][0], columns)];
        let sum = f(&x)[0];
        assert_close(got.outputs[0].floats(), &[0.25 * sum], 1e-6, 2e-6, "loss");
        assert_close(got.outputs[1].floats(), &[sum], 1e-6, 2e-6, "sum");
        for (i, what) in ["da", "db", "dlog_scale"].into_iter().enumerate() {
            let expected = numeric_gradient(&x, i, &[0.5], &f);
            assert_close(got.gradients[i].floats(), &expected, 5e-5, 1e-4, what);
        }
        let alone = backward(&inputs, 1);
        assert_eq!((&got.outputs, &got.gradients[..3]), (&alone.outputs, &alone.gradients[..3]));
    }
}

#[test]
fn a_frozen_side_gets_nothing_and_the_other_the_same() {
    let inputs = operands(7, 4, 0.3);
    let both = backward(&inputs, 2);
    for frozen in 0..3 {
        let seeds = [Array::f32(&[], vec![2.0])];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let got = trial.run(&|g, x| {
            let mut x = x.to_vec();
            x[frozen] = g.stop_gradient(x[frozen]);
            trace(g, &x)
        });
        let got = got.unwrap().gradients;
        for (i, (got, both)) in got.iter().zip(&both.gradients).take(3).enumerate() {
            match i == frozen {
                true => assert!(got.floats().iter().all(|x| x.is_nan())),
                false => assert_eq!(got, both),
            }
        }
    }
}

#[test]
fn dead_rows_are_neither_read_nor_written() {
    let (group, live, columns) = (9, 5, 3);
    let mut inputs = operands(group, columns, 0.1);
    for x in &mut inputs[..2] {
        let Array::Float(_, data, _) = x else { panic!("floats") };
        data[live * columns..].fill(f32::NAN);
    }
    let cut = |x: &Array| Array::f32(&[live, columns], x.floats()[..live * columns].to_vec());
    let small = [cut(&inputs[0]), cut(&inputs[1]), inputs[2].clone(), inputs[3].clone()];
    inputs.push(Array::i32(&[], vec![live as i32]));
    let seeds = [Array::f32(&[], vec![2.0])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let got = trial
        .run(&|g, x| {
            let (a, b) = (g.with_live(x[0], x[4]), g.with_live(x[1], x[4]));
            trace(g, &[a, b, x[2], x[3]])
        })
        .unwrap();
    let expected = backward(&small, 2);
    assert_eq!(got.outputs, expected.outputs);
    for i in 0..2 {
        let (got, expected) = (got.gradients[i].floats(), expected.gradients[i].floats());
        assert_eq!(got[..live * columns], *expected);
        assert!(got[live * columns..].iter().all(|x| x.is_nan()));
    }
    assert_eq!(got.gradients[2], expected.gradients[2]);
}

#[test]
fn a_gpu_agrees() {
    // One chunk of rows, and two; rows that copies cannot align.
    for (group, columns) in [(1, 1), (40, 24), (131, 5), (520, 8)] {
        let mut inputs = operands(group, columns, 0.7);
        for x in &mut inputs[..2] {
            let Array::Float(_, data, _) = x else { panic!("floats") };
            data.iter_mut().for_each(|x| *x = x.clamp(-1.0, 1.0));
        }
        inputs[3] = Array::f32(&[], vec![1.0 / group as f32]);
        let trial = Trial { inputs: &inputs, ..Trial::default() };
        // A pair's term is a few times the logarithm of the group.
        let hold =
            Hold { trial, activations: 2, live: None, near: Near::Sums(10.0 * group as f64) };
        hold.run(&trace);
        let seeds = [Array::f32(&[], vec![1.0])];
        let trial = Trial { seeds: Some(&seeds), ..trial };
        // Gradients of products are rounded where a and b are bf16.
        let near = Near::Rounded(10.0, 8.0 / group as f64);
        for frozen in
            [None, Some(0), Some(1), Some(2)].into_iter().take(if group > 40 { 1 } else { 4 })
        {
            Hold { trial, near, ..hold }.run(&|g, x| {
                let mut x = x.to_vec();
                if let Some(frozen) = frozen {
                    x[frozen] = g.stop_gradient(x[frozen]);
                }
                Ok(vec![trace(g, &x)?[0]])
            });
        }
    }
}

#[test]
fn a_group_with_dead_rows_has_no_form_on_a_gpu() {
    let mut inputs = operands(4, 2, 0.0);
    inputs.push(Array::i32(&[], vec![3]));
    let policy = Policy { target: Target::H100, ..Policy::default() };
    let trial = Trial { inputs: &inputs, policy, ..Trial::default() };
    let program = trial.program(&|g, x| {
        let (a, b) = (g.with_live(x[0], x[4]), g.with_live(x[1], x[4]));
        trace(g, &[a, b, x[2], x[3]])
    });
    let launches =
        |program: &Program| program.planned(0..1).iter().all(|node| node.launches.is_some());
    assert!(!launches(&program.unwrap()));
    assert!(launches(&trial.program(&|g, x| trace(g, x)).unwrap()));
}
