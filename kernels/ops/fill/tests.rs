//! `fill` fills.

use crate::emulator::hold::{Hold, Near};
use crate::ops::fill::Fill;
use crate::testing::{Trial, forward};

#[test]
fn fills_every_element() {
    let op = || Fill { shape: vec![3, 5], value: 0.25 };
    let got = forward(&[], &|g, _| Ok(vec![g.apply_one(op(), &[])?])).unwrap();
    assert_eq!(got[0].floats(), [0.25; 15]);
}

#[test]
fn a_gpu_has_the_same_bits() {
    let hold = Hold { trial: Trial::default(), activations: 0, live: None, near: Near::Bits };
    for shape in [vec![], vec![3, 5], vec![300, 33], vec![9001]] {
        hold.run(&|g, _| Ok(vec![g.apply_one(Fill { shape: shape.clone(), value: -0.25 }, &[])?]));
    }
}
