//! `fill` fills.

use crate::ops::fill::Fill;
use crate::testing::forward;

#[test]
fn fills_every_element() {
    let op = || Fill { shape: vec![3, 5], value: 0.25 };
    let got = forward(&[], &|g, _| Ok(vec![g.apply_one(op(), &[])?])).unwrap();
    assert_eq!(got[0].floats(), [0.25; 15]);
}
