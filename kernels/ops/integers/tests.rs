//! Integer rules, with dead elements.

use crate::emulator::hold::{Hold, Near};
use crate::ops::integers::{add_integers, keep_or, less_than, not_equal, total};
use crate::testing::{Array, Trial, forward};

#[test]
fn every_rule_does_what_it_says() {
    let inputs = [Array::i32(&[2, 2], vec![3, -4, 5, 7]), Array::i32(&[2, 2], vec![3, 0, 6, 0])];
    let got = forward(&inputs, &|g, x| {
        Ok(vec![
            not_equal(g, x[0], x[1])?,
            add_integers(g, x[0], x[1])?,
            keep_or(g, x[0], x[1], -1)?,
            less_than(g, x[0], 5)?,
            total(g, x[0])?,
        ])
    })
    .unwrap();
    assert_eq!(got[0].ints(), [0, 1, 1, 1]);
    assert_eq!(got[1].ints(), [6, -4, 11, 7]);
    assert_eq!(got[2].ints(), [3, -1, 5, -1]);
    assert_eq!(got[3].ints(), [1, 1, 0, 0]);
    assert_eq!(got[4].ints(), [11]);
}

#[test]
fn dead_elements_are_neither_read_nor_written() {
    let inputs = [
        Array::i32(&[3], vec![1, 2, 3]),
        Array::i32(&[3], vec![4, 5, 6]),
        Array::i32(&[], vec![1]),
    ];
    let got = forward(&inputs, &|g, x| {
        let b = g.with_live(x[1], x[2]);
        Ok(vec![add_integers(g, x[0], b)?, total(g, b)?])
    })
    .unwrap();
    assert_eq!(got[0].ints(), [5, -1, -1]);
    assert_eq!(got[1].ints(), [4]);
}

#[test]
fn shapes_must_agree() {
    let inputs = [Array::i32(&[3], vec![1; 3]), Array::i32(&[1], vec![4])];
    let error = forward(&inputs, &|g, x| Ok(vec![not_equal(g, x[0], x[1])?])).unwrap_err();
    assert_eq!(error.to_string(), "integers at : NotEqual of i32[3] and i32[1]");
}

#[test]
fn a_gpu_has_the_same_bits() {
    let words = |seed: i32| (0..900).map(|i| (i * seed) % 7 - 3).collect::<Vec<i32>>();
    let inputs = [Array::i32(&[300, 3], words(5)), Array::i32(&[300, 3], words(11))];
    let trial = Trial { inputs: &inputs, narrow: false, ..Trial::default() };
    for live in [None, Some(123)] {
        Hold { trial, activations: 2, live, near: Near::Bits }.run(&|g, x| {
            // The total alone has no dead elements, which hold what an earlier node left.
            let all = [
                not_equal(g, x[0], x[1])?,
                add_integers(g, x[0], x[1])?,
                keep_or(g, x[0], x[1], -9)?,
                less_than(g, x[0], 2)?,
            ];
            all.into_iter().map(|x| total(g, x)).collect()
        });
    }
}
