//! `exponential_average` moves a state towards a weight.

use crate::emulator::hold::{Hold, Near};
use crate::graph::{Tensor, Write};
use crate::ops::exponential_average::{ExponentialAverage, exponential_average};
use crate::testing::{Array, Trial, assert_close, forward, noise, wide};

#[test]
fn averages_move_towards_the_weight_step_by_step() {
    for (n, d) in [(1, 1), (7, 5), (300, 101)] {
        let (x, start) = (noise(1, n * d), noise(2, n * d));
        let inputs = [Array::f32(&[n, d], x.clone())];
        let states = [Array::f32(&[n, d], start.clone()), Array::f32(&[n, d], start.clone())];
        let trial = Trial { inputs: &inputs, states: &states, ..Trial::default() };
        let got = trial.run(&|g, x| {
            exponential_average(g, x[1], x[0], 0.9)?;
            exponential_average(g, x[1], x[0], 0.9)?;
            g.apply_into(ExponentialAverage { decay: 0.9 }, &[x[0]], x[2], Write::Overwrite)?;
            Ok(vec![])
        });
        let states = got.unwrap().states;
        let kept = f64::from(0.9f32).powi(2);
        let truth = wide(&x).into_iter().zip(wide(&start));
        let expected: Vec<f64> = truth.map(|(x, old)| kept * old + (1.0 - kept) * x).collect();
        assert_close(states[0].floats(), &expected, 1e-6, 1e-6, "average");
        assert_eq!(states[1].floats(), x);
    }
}

#[test]
fn a_decay_outside_is_refused() {
    let inputs = [Array::f32(&[1], vec![0.0])];
    let error = forward(&inputs, &|g, x: &[Tensor]| {
        Ok(vec![g.apply_one(ExponentialAverage { decay: 1.5 }, x)?])
    })
    .unwrap_err();
    assert_eq!(error.to_string(), "exponential_average at : decay 1.5");
}

#[test]
fn a_gpu_has_the_same_bits() {
    for (n, d) in [(1, 1), (300, 33), (20, 64)] {
        let inputs = [Array::f32(&[n, d], noise(1, n * d))];
        let states = [2, 3].map(|seed| Array::f32(&[n, d], noise(seed, n * d)));
        let trial = Trial { inputs: &inputs, states: &states, ..Trial::default() };
        Hold { trial, activations: 1, live: None, near: Near::Bits }.run(&|g, x| {
            exponential_average(g, x[1], x[0], 0.9)?;
            g.apply_into(ExponentialAverage { decay: 0.9 }, &[x[0]], x[2], Write::Overwrite)?;
            Ok(vec![])
        });
    }
}
