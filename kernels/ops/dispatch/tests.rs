//! `dispatch` and its gradient, with pairs that found no row.

use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::dispatch::dispatch;
use crate::ops::group_by_expert::group_by_expert;
use crate::testing::{Array, Trial, noise};

#[test]
fn tokens_are_copied_and_gradients_come_back() {
    for (n, k, d, capacity) in [(1, 1, 1, 1), (5, 2, 3, 16), (300, 3, 65, 900), (6, 2, 4, 7)] {
        let x = noise(1, n * d);
        let expert: Vec<i32> = (0..n * k).map(|i| (i * 3 % 4) as i32).collect();
        let inputs = [Array::f32(&[n, d], x.clone()), Array::i32(&[n, k], expert)];
        let mut dy = noise(2, capacity * d);
        let live = capacity.min(n * k);
        dy[live * d..].fill(f32::NAN);
        let seeds = [Array::f32(&[capacity, d], dy.clone())];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let trace = |g: &mut Graph<'_>, x: &[Tensor]| {
            let grouping = group_by_expert(g, x[1], 4, capacity)?;
            Ok(vec![dispatch(g, x[0], &grouping)?, grouping.pair_of])
        };
        let got = trial.run(&trace).unwrap();
        assert_eq!(got.overflow, capacity < n * k);
        let (rows, pair_of) = (got.outputs[0].floats(), got.outputs[1].ints());
        let mut dx = vec![0.0; n * d];
        // In order of choices, which is the order of rows only within one expert.
        let mut by_pair: Vec<usize> = (0..live).collect();
        by_pair.sort_by_key(|&row| pair_of[row]);
        for row in by_pair {
            let token = pair_of[row] as usize / k;
            assert_eq!(rows[row * d..][..d], x[token * d..][..d]);
            (0..d).for_each(|c| dx[token * d + c] += dy[row * d + c]);
        }
        assert!(rows[live * d..].iter().all(|x| x.is_nan()));
        assert_eq!(got.gradients[0].floats(), dx);
    }
}

#[test]
fn a_gpu_has_the_same_bits() {
    for (n, k, d, capacity) in [(1, 1, 1, 1), (9, 4, 33, 36), (70, 3, 264, 210), (6, 2, 40, 7)] {
        let expert: Vec<i32> = (0..n * k).map(|i| (i * 3 % 4) as i32).collect();
        let inputs = [Array::f32(&[n, d], noise(1, n * d)), Array::i32(&[n, k], expert)];
        let seeds = [Array::f32(&[capacity, d], noise(2, capacity * d))];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        for live in [None, Some(n / 2)] {
            Hold { trial, activations: 1, live, near: Near::Bits }.run(&|g, x| {
                let live = g.spec(x[0]).live;
                let expert = live.map_or(x[1], |live| g.with_live(x[1], live));
                let grouping = group_by_expert(g, expert, 4, capacity)?;
                Ok(vec![dispatch(g, x[0], &grouping)?])
            });
        }
    }
}
