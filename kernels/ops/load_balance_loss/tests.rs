//! `load_balance_loss` against f64: odd sizes, no load, dead rows.

use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::load_balance_loss::{load_balance_loss, oracle};
use crate::testing::{Array, Trial, assert_close, noise, numeric_gradient, wide};

#[test]
fn loss_and_gradient_match_the_oracle_and_dead_rows_stay() {
    for (n, experts, live) in [(1, 1, 1), (7, 3, 5), (40, 9, 40), (3, 4, 0)] {
        let mut logits: Vec<f32> = noise(1, n * experts).iter().map(|x| 2.0 * x).collect();
        logits[live * experts..].fill(f32::NAN);
        let counts: Vec<i32> = (0..experts).map(|e| (e * e % 5) as i32).collect();
        let inputs = [
            Array::f32(&[n, experts], logits.clone()),
            Array::i32(&[experts], counts.clone()),
            Array::f32(&[], vec![0.5]),
            Array::i32(&[], vec![live as i32]),
        ];
        let seeds = [Array::f32(&[], vec![3.0])];
        let trace = |g: &mut Graph<'_>, x: &[Tensor]| {
            let logits = g.with_live(x[0], x[3]);
            let (loss, sum) = load_balance_loss(g, logits, x[1], x[2])?;
            Ok(vec![loss, sum])
        };
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let got = trial.run(&trace).unwrap();
        let x = wide(&logits[..live * experts]);
        let sum = oracle::sum(&x, &counts);
        assert_close(got.outputs[0].floats(), &[0.5 * sum], 1e-6, 1e-6, "loss");
        assert_close(got.outputs[1].floats(), &[sum], 1e-6, 1e-6, "sum");
        let f = |x: &[Vec<f64>]| vec![oracle::sum(&x[0], &counts)];
        let expected = numeric_gradient(&[x], 0, &[1.5], &f);
        let dx = got.gradients[0].floats();
        assert_close(&dx[..live * experts], &expected, 2e-6, 1e-5, "dlogits");
        assert!(dx[live * experts..].iter().all(|x| x.is_nan()));
    }
}

#[test]
fn an_even_load_costs_one_per_token() {
    let inputs = [
        Array::f32(&[3, 4], vec![0.25; 12]),
        Array::i32(&[4], vec![6; 4]),
        Array::f32(&[], vec![1.0]),
    ];
    let trial = Trial { inputs: &inputs, ..Trial::default() };
    let got = trial
        .run(&|g, x| {
            let (loss, _) = load_balance_loss(g, x[0], x[1], x[2])?;
            Ok(vec![loss])
        })
        .unwrap();
    assert_close(got.outputs[0].floats(), &[3.0], 1e-6, 0.0, "loss");
}

#[test]
fn a_gpu_agrees() {
    for (n, experts, live) in [(1, 1, 1), (7, 3, 5), (40, 65, 40), (20, 264, 19), (3, 4, 0)] {
        let logits = noise(1, n * experts).iter().map(|x| 2.0 * x).collect();
        let counts: Vec<i32> = (0..experts).map(|e| (e * e % 5) as i32).collect();
        // Every row's share is below that of the busiest expert.
        let busiest = f64::from(*counts.iter().max().unwrap());
        let even = counts.iter().sum::<i32>().max(1) as f64 / experts as f64;
        let inputs = [
            Array::f32(&[n, experts], logits),
            Array::i32(&[experts], counts),
            Array::f32(&[], vec![0.5]),
        ];
        let seeds = [Array::f32(&[], vec![3.0])];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let near = Near::Sums(n as f64 * busiest / even);
        Hold { trial, activations: 1, live: Some(live), near }.run(&|g, x| {
            let (loss, sum) = load_balance_loss(g, x[0], x[1], x[2])?;
            Ok(vec![loss, sum])
        });
    }
}
