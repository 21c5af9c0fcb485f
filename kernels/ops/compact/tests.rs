//! `compact`: order, count, overflow, dead elements.

use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::compact::compact;
use crate::testing::{Array, Trial};

fn run(mask: &[i32], capacity: usize, live: usize) -> (Vec<i32>, i32, bool) {
    let inputs = [Array::i32(&[mask.len()], mask.to_vec()), Array::i32(&[], vec![live as i32])];
    let outcome = Trial { inputs: &inputs, ..Trial::default() }
        .run(&|g: &mut Graph<'_>, x: &[Tensor]| {
            let mask = g.with_live(x[0], x[1]);
            let (index, count) = compact(g, mask, capacity)?;
            assert_eq!(g.spec(index).live, Some(count));
            Ok(vec![index, count])
        })
        .unwrap();
    let [index, count] = &outcome.outputs[..] else { panic!("two outputs") };
    (index.ints().to_vec(), count.ints()[0], outcome.overflow)
}

#[test]
fn positions_come_in_order_and_the_rest_is_left_alone() {
    assert_eq!(run(&[0, 5, 0, -1, 1], 4, 5), (vec![1, 3, 4, -1], 3, false));
    assert_eq!(run(&[1], 1, 1), (vec![0], 1, false));
    assert_eq!(run(&[0, 0], 2, 2), (vec![-1, -1], 0, false));
}

#[test]
fn too_many_raise_the_flag_and_keep_the_first() {
    assert_eq!(run(&[1, 1, 0, 1, 1], 2, 5), (vec![0, 1], 2, true));
    assert_eq!(run(&[1, 1, 0, 1], 3, 4), (vec![0, 1, 3], 3, false));
}

#[test]
fn dead_elements_are_not_read() {
    assert_eq!(run(&[1, 0, 1, 1], 4, 2), (vec![0, -1, -1, -1], 1, false));
}

#[test]
fn a_gpu_has_the_same_bits() {
    for (n, capacity) in [(1, 1), (2500, 2500), (1100, 40)] {
        let mask = (0..n).map(|i: i32| i * i % 7 - 1).collect();
        let inputs = [Array::i32(&[n as usize], mask), Array::i32(&[], vec![n - n / 3])];
        let trial = Trial { inputs: &inputs, ..Trial::default() };
        Hold { trial, activations: 0, live: None, near: Near::Bits }.run(&|g, x| {
            let mask = g.with_live(x[0], x[1]);
            let (index, count) = compact(g, mask, capacity)?;
            Ok(vec![index, count])
        });
    }
}
