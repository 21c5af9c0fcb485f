//! `add` at odd sizes.

use crate::ops::add::add;
use crate::testing::{Array, forward, noise};

#[test]
fn adds_at_odd_sizes() {
    for n in [1, 3, 17, 64, 101] {
        let (a, b) = (noise(1, n), noise(2, n));
        let inputs = [Array::f32(&[n], a.clone()), Array::f32(&[n], b.clone())];
        let got = forward(&inputs, &|g, x| Ok(vec![add(g, x[0], x[1])?])).unwrap();
        let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        assert_eq!(got[0].floats(), expected);
    }
}
