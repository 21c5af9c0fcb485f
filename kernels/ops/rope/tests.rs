//! `rope` against complex numbers in f64, its inverse, bad positions and dead rows.

use std::sync::Arc;

use crate::emulator::hold::{Hold, Near};
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::rope::{RopeScaling, RopeSpec, RopeTable, oracle, rope};
use crate::testing::{Array, Trial, assert_close, forward, gradients, noise, wide};

const LLAMA3: RopeScaling =
    RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original_length: 64.0 };

const YARN: RopeScaling = RopeScaling::Yarn {
    factor: 8.0,
    fast: 32.0,
    slow: 1.0,
    original_length: 64.0,
    whole: true,
    magnitude: 1.2,
};

fn spec(head_dim: usize, scaling: RopeScaling) -> RopeSpec {
    RopeSpec { head_dim, theta: 1e4, scaling, max_positions: 300 }
}

fn trace(
    table: Arc<RopeTable>,
    heads: usize,
) -> impl Fn(&mut Graph<'_>, &[Tensor]) -> Result<Vec<Tensor>> {
    move |g, x| Ok(vec![rope(g, x[0], x[1], &table, heads)?])
}

#[test]
fn rotations_agree_with_complex_numbers() {
    for scaling in [RopeScaling::None, RopeScaling::Linear { factor: 3.0 }, LLAMA3, YARN] {
        for (n, head_dim, heads, columns) in [(1, 2, 1, 2), (7, 6, 3, 24), (40, 64, 2, 192)] {
            let spec = spec(head_dim, scaling);
            let positions: Vec<i32> = (0..n as i32).map(|i| i * 37 % 300).collect();
            let (x, dy) = (noise(1, n * columns), noise(2, n * columns));
            let inputs =
                [Array::f32(&[n, columns], x.clone()), Array::i32(&[n], positions.clone())];
            let trace = trace(RopeTable::new(spec), heads);
            let got = forward(&inputs, &trace).unwrap();
            let expected = oracle::forward(&wide(&x), &positions, columns, heads, &spec);
            assert_close(got[0].floats(), &expected, 1e-5, 1e-6, "y");
            // The gradient of a rotation is the rotation back.
            let got = gradients(&inputs, &[Array::f32(&[n, columns], dy.clone())], &trace).unwrap();
            let back: Vec<i32> = positions.iter().map(|p| -p).collect();
            let expected = oracle::forward(&wide(&dy), &back, columns, heads, &spec);
            assert_close(got[0].floats(), &expected, 1e-5, 1e-6, "dx");
        }
    }
}

#[test]
fn scaling_keeps_short_waves_and_stretches_long_ones() {
    let (plain, scaled) = (spec(64, RopeScaling::None), spec(64, LLAMA3));
    assert_eq!(plain.frequency(0), scaled.frequency(0));
    assert_eq!(plain.frequency(31) / 8.0, scaled.frequency(31));
    let between = (0..32).filter(|&i| {
        let ratio = plain.frequency(i) / scaled.frequency(i);
        ratio > 1.0 && ratio < 8.0
    });
    assert!(between.count() > 0);
}

#[test]
fn yarn_mixes_between_whole_pairs_or_not() {
    let RopeScaling::Yarn { factor, fast, slow, original_length, magnitude, .. } = YARN else {
        unreachable!("it is yarn")
    };
    let broken = RopeScaling::Yarn { factor, fast, slow, original_length, whole: false, magnitude };
    let (plain, whole, broken) = (spec(64, RopeScaling::None), spec(64, YARN), spec(64, broken));
    // 64 positions are 10 turns of the fastest pair: none turns often enough to be kept but it.
    assert_eq!(plain.frequency(0), whole.frequency(0));
    assert_eq!(plain.frequency(31) / 8.0, whole.frequency(31));
    assert!((1..8).any(|i| whole.frequency(i) != broken.frequency(i)));
}

#[test]
fn a_position_outside_the_table_gives_nan_in_rotated_heads_alone() {
    let inputs = [Array::f32(&[3, 3], noise(1, 9)), Array::i32(&[3], vec![-1, 300, 299])];
    let got = forward(&inputs, &trace(RopeTable::new(spec(2, RopeScaling::None)), 1)).unwrap();
    for (row, y) in got[0].floats().chunks(3).enumerate() {
        assert_eq!(y[..2].iter().all(|y| y.is_nan()), row < 2);
        assert_eq!(y[2], inputs[0].floats()[row * 3 + 2]);
    }
}

#[test]
fn dead_rows_are_neither_read_nor_written() {
    let mut x = noise(1, 12);
    x[8..].fill(f32::NAN);
    let inputs =
        [Array::f32(&[3, 4], x), Array::i32(&[3], vec![5, 6, i32::MAX]), Array::i32(&[], vec![2])];
    let seeds = [Array::f32(&[3, 4], vec![1.0; 12])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let got = trial.run(&|g, x| {
        let rows = g.with_live(x[0], x[2]);
        trace(RopeTable::new(spec(4, RopeScaling::None)), 1)(g, &[rows, x[1]])
    });
    let got = got.unwrap();
    for got in [&got.outputs[0], &got.gradients[0]] {
        assert!(got.floats()[..8].iter().all(|x| x.is_finite()));
        assert!(got.floats()[8..].iter().all(|x| x.is_nan()));
    }
}

#[test]
fn too_many_heads_are_refused() {
    let inputs = [Array::f32(&[1, 6], noise(1, 6)), Array::i32(&[1], vec![0])];
    let error = forward(&inputs, &trace(RopeTable::new(spec(4, RopeScaling::None)), 2));
    let expected = "rope at : x is f32[1, 6]: no room for 2 heads of 4";
    assert_eq!(error.unwrap_err().to_string(), expected);
}

#[test]
fn a_gpu_agrees() {
    for (n, head_dim, heads, columns, scaling) in [
        (1, 2, 1, 2, RopeScaling::None),
        (9, 6, 3, 24, LLAMA3),
        (70, 16, 5, 88, YARN),
        (3, 256, 2, 520, RopeScaling::Linear { factor: 3.0 }),
    ] {
        let mut positions: Vec<i32> = (0..n as i32).map(|i| i * 37 % 300).collect();
        positions[n / 2] = if n > 3 { 300 } else { 299 };
        let inputs =
            [Array::f32(&[n, columns], noise(1, n * columns)), Array::i32(&[n], positions)];
        let seeds = [Array::f32(&[n, columns], noise(2, n * columns))];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let trace = trace(RopeTable::new(spec(head_dim, scaling)), heads);
        // Two products of outliers of 30 with cosines of up to 1.2.
        for live in [None, Some(n.div_ceil(2))] {
            Hold { trial, activations: 1, live, near: Near::Sums(80.0) }.run(&trace);
        }
    }
}

#[test]
fn phases_of_distant_positions_are_exact() {
    // What f32 angles lose: a million positions on, the fastest pair still agrees with f64.
    let last = 1 << 20;
    let spec = RopeSpec { max_positions: last + 1, ..spec(2, RopeScaling::None) };
    let inputs =
        [Array::f32(&[2, 2], vec![1.0, 0.0, 0.0, 1.0]), Array::i32(&[2], vec![last as i32; 2])];
    let trial = Trial { inputs: &inputs, narrow: false, ..Trial::default() };
    let trace = trace(RopeTable::new(spec), 1);
    Hold { trial, activations: 1, live: None, near: Near::Sums(1.0) }.run(&trace);
}
