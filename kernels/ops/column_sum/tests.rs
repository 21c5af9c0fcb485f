//! `column_sum` at odd sizes, without rows and with dead ones.

use crate::emulator::hold::{Hold, Near};
use crate::ops::column_sum::COLUMN_SUM;
use crate::testing::{Array, Trial, assert_close, forward, noise};

fn truth(x: &[f32], columns: usize) -> Vec<f64> {
    let mut sums = vec![0.0; columns];
    for row in x.chunks(columns) {
        sums.iter_mut().zip(row).for_each(|(s, &x)| *s += f64::from(x));
    }
    sums
}

#[test]
fn columns_are_summed() {
    for (n, d) in [(1, 1), (3, 7), (65, 64), (200, 131)] {
        let x = noise(1, n * d);
        let inputs = [Array::f32(&[n, d], x.clone())];
        let got = forward(&inputs, &|g, x| Ok(vec![g.apply_one(COLUMN_SUM, &[x[0]])?])).unwrap();
        assert_close(got[0].floats(), &truth(&x, d), 1e-4, 1e-6, "sum");
    }
}

#[test]
fn only_live_rows_count() {
    let (n, d) = (9, 5);
    for live in [0, 4, 9] {
        let mut x = noise(1, n * d);
        let expected = truth(&x[..live * d], d);
        x[live * d..].fill(f32::NAN);
        let inputs = [Array::f32(&[n, d], x), Array::i32(&[], vec![live as i32])];
        let got = forward(&inputs, &|g, x| {
            let rows = g.with_live(x[0], x[1]);
            Ok(vec![g.apply_one(COLUMN_SUM, &[rows])?])
        })
        .unwrap();
        assert_close(got[0].floats(), &expected, 1e-5, 1e-6, "sum");
    }
}

#[test]
fn a_gpu_has_the_same_bits() {
    for (n, d) in [(1, 1), (65, 33), (200, 72)] {
        let inputs = [Array::f32(&[n, d], noise(1, n * d)), Array::i32(&[], vec![n as i32 / 2])];
        let trial = Trial { inputs: &inputs, ..Trial::default() };
        Hold { trial, activations: 1, live: None, near: Near::Bits }.run(&|g, x| {
            let rows = g.with_live(x[0], x[1]);
            Ok(vec![g.apply_one(COLUMN_SUM, &[x[0]])?, g.apply_one(COLUMN_SUM, &[rows])?])
        });
    }
}
