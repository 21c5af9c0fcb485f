//! `group_by_expert`: stable order, empty experts, overflow, dead tokens.

use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::group_by_expert::group_by_expert;
use crate::testing::{Array, Outcome, Trial};

fn run(expert: &[i32], k: usize, experts: usize, capacity: usize, live: usize) -> Outcome {
    let inputs =
        [Array::i32(&[expert.len() / k, k], expert.to_vec()), Array::i32(&[], vec![live as i32])];
    let trace = |g: &mut Graph<'_>, x: &[Tensor]| {
        let expert = g.with_live(x[0], x[1]);
        let grouping = group_by_expert(g, expert, experts, capacity)?;
        assert_eq!(g.spec(grouping.pair_of).live, Some(grouping.count));
        Ok(vec![grouping.row_of, grouping.pair_of, grouping.expert_start, grouping.count])
    };
    Trial { inputs: &inputs, ..Trial::default() }.run(&trace).unwrap()
}

#[test]
fn pairs_are_sorted_by_expert_and_keep_their_order() {
    let got = run(&[2, 0, 0, 2, 2, 3], 2, 4, 8, 3);
    assert_eq!(got.outputs[0].ints(), [2, 0, 1, 3, 4, 5]);
    assert_eq!(got.outputs[1].ints(), [1, 2, 0, 3, 4, 5, -1, -1]);
    assert_eq!(got.outputs[2].ints(), [0, 2, 2, 5, 6]);
    assert_eq!(got.outputs[3].ints(), [6]);
    assert!(!got.overflow);
}

#[test]
fn rows_and_pairs_are_inverse_at_odd_sizes() {
    for (n, k, experts) in [(1, 1, 1), (7, 3, 5), (500, 2, 17)] {
        let expert: Vec<i32> = (0..n * k).map(|i| (i * i % experts) as i32).collect();
        let got = run(&expert, k, experts, n * k, n);
        let (row_of, pair_of) = (got.outputs[0].ints(), got.outputs[1].ints());
        let start = got.outputs[2].ints();
        for (pair, &row) in row_of.iter().enumerate() {
            assert_eq!(pair_of[row as usize], pair as i32);
            let e = expert[pair] as usize;
            assert!((start[e]..start[e + 1]).contains(&row));
        }
        let sorted = |e: usize| pair_of[start[e] as usize..start[e + 1] as usize].is_sorted();
        assert!((0..experts).all(sorted));
        assert_eq!(start[experts], (n * k) as i32);
    }
}

#[test]
fn too_many_pairs_raise_the_flag() {
    let got = run(&[1, 0, 1, 2], 1, 3, 2, 4);
    assert!(got.overflow);
    assert_eq!(got.outputs[0].ints(), [1, 0, -1, -1]);
    assert_eq!(got.outputs[1].ints(), [1, 0]);
    assert_eq!(got.outputs[2].ints(), [0, 1, 2, 2]);
    assert_eq!(got.outputs[3].ints(), [2]);
    assert!(!run(&[1, 0, 1, 2], 1, 3, 4, 4).overflow);
}

#[test]
fn dead_tokens_do_not_count() {
    let got = run(&[1, 99, 99], 1, 2, 3, 1);
    assert_eq!(got.outputs[0].ints(), [0, -1, -1]);
    assert_eq!(got.outputs[1].ints(), [0, -1, -1]);
    assert_eq!(got.outputs[2].ints(), [0, 0, 1]);
    let got = run(&[5, 5], 1, 2, 3, 0);
    assert_eq!(got.outputs[2].ints(), [0, 0, 0]);
}

#[test]
fn a_gpu_has_the_same_bits() {
    // Several units for each part of an expert, and several parts; as many experts as there may be.
    for (n, k, experts, capacity, live) in [
        (1, 1, 1, 1, 1),
        (7, 5, 5, 35, 7),
        (700, 3, 600, 2100, 700),
        (2000, 2, 300, 3000, 1999),
        (1300, 1, 3, 1300, 1300),
        (300, 2, 1024, 600, 0),
    ] {
        for one_takes_all in [false, true] {
            let of_pair = |i| if one_takes_all { experts - 1 } else { i * i % experts };
            let expert = (0..n * k).map(|i| of_pair(i) as i32).collect();
            let inputs = [Array::i32(&[n, k], expert), Array::i32(&[], vec![live])];
            let trial = Trial { inputs: &inputs, narrow: false, ..Trial::default() };
            Hold { trial, activations: 0, live: None, near: Near::Bits }.run(&|g, x| {
                let expert = g.with_live(x[0], x[1]);
                let grouping = group_by_expert(g, expert, experts, capacity)?;
                Ok(vec![grouping.row_of, grouping.pair_of, grouping.expert_start, grouping.count])
            });
        }
    }
}
