//! `copy` copies, and respects a live extent.

use crate::ops::copy::Copy;
use crate::testing::{Array, forward, noise};

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
