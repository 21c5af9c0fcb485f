//! `update_bias` moves a state against the load.

use crate::emulator::hold::{Hold, Near};
use crate::ops::update_bias::update_bias;
use crate::testing::{Array, Trial, noise};

#[test]
fn the_idle_rise_the_busy_fall_and_the_mean_stays() {
    let inputs = [Array::i32(&[4], vec![5, 3, 0, 4]), Array::i32(&[1], vec![9])];
    let states = [Array::f32(&[4], vec![1.0, 2.0, 3.0, 4.0]), Array::f32(&[1], vec![-0.5])];
    let trial = Trial { inputs: &inputs, states: &states, ..Trial::default() };
    let got = trial
        .run(&|g, x| {
            update_bias(g, x[2], x[0], 0.25)?;
            update_bias(g, x[3], x[1], 0.25)?;
            Ok(vec![])
        })
        .unwrap();
    // The mean is 3.
    assert_eq!(got.states[0].floats(), [0.75, 2.0, 3.25, 3.75]);
    assert_eq!(got.states[1].floats(), [-0.5]);
}

#[test]
fn a_gpu_has_the_same_bits() {
    for experts in [1, 4, 33, 600] {
        let counts = (0..experts).map(|e| (1 << 29) + e * e % 7).collect();
        let inputs = [Array::i32(&[experts as usize], counts)];
        let states = [Array::f32(&[experts as usize], noise(1, experts as usize))];
        let trial = Trial { inputs: &inputs, states: &states, narrow: false, ..Trial::default() };
        Hold { trial, activations: 0, live: None, near: Near::Bits }.run(&|g, x| {
            update_bias(g, x[1], x[0], 1e-3)?;
            Ok(vec![])
        });
    }
}
