//! `copy` copies, and respects a live extent.

use crate::emulator::hold::{Hold, Near};
use crate::ops::copy::{Copy, add_into, copy_into};
use crate::testing::{Array, Trial, forward, noise};

#[test]
fn copies_only_live_rows() {
    let data = noise(5, 21);
    let inputs = [Array::f32(&[7, 3], data.clone()), Array::i32(&[], vec![4])];
    let got = forward(&inputs, &|g, x| {
        let live = g.with_live(x[0], x[1]);
        Ok(vec![g.apply_one(Copy, &[live])?])
    })
    .unwrap();
    assert_eq!(got[0].floats()[..12], data[..12]);
    assert!(got[0].floats()[12..].iter().all(|x| x.is_nan()), "dead rows were written");
}

#[test]
fn states_are_overwritten_or_added_to() {
    let inputs = [Array::i32(&[3], vec![1, -2, 3]), Array::f32(&[2], vec![0.5, 2.0])];
    let states = [
        Array::i32(&[3], vec![10, 20, 30]),
        Array::i32(&[3], vec![10, 20, 30]),
        Array::f32(&[2], vec![1.0, 1.0]),
    ];
    let trial = Trial { inputs: &inputs, states: &states, ..Trial::default() };
    let outcome = trial.run(&|g, x| {
        copy_into(g, x[0], x[2])?;
        add_into(g, x[0], x[3])?;
        add_into(g, x[1], x[4])?;
        Ok(vec![])
    });
    let got = outcome.unwrap().states;
    assert_eq!(got[0].ints(), [1, -2, 3]);
    assert_eq!(got[1].ints(), [11, 18, 33]);
    assert_eq!(got[2].floats(), [1.5, 3.0]);
}

#[test]
fn a_gpu_copies_and_adds() {
    let inputs = [Array::i32(&[30], (0..30).collect()), Array::f32(&[7, 3], noise(1, 21))];
    let states = [
        Array::i32(&[30], vec![9; 30]),
        Array::i32(&[30], vec![9; 30]),
        Array::f32(&[7, 3], noise(2, 21)),
    ];
    let trial = Trial { inputs: &inputs, states: &states, ..Trial::default() };
    Hold { trial, activations: 0, live: None, near: Near::Bits }.run(&|g, x| {
        copy_into(g, x[0], x[2])?;
        add_into(g, x[0], x[3])?;
        add_into(g, x[1], x[4])?;
        Ok(vec![])
    });
}
