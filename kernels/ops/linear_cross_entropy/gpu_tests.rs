//! The loss head on a GPU, emulated, against the CPU's: every option, chunks with edges, dead and
//! ignored rows, marks, logits that are kept.

use crate::emulator::hold::{Hold, Near};
use crate::graph::Target;
use crate::ops::linear_cross_entropy::tests::{every_option, inputs, trace};
use crate::ops::linear_cross_entropy::{LossOptions, marked_linear_cross_entropy};
use crate::testing::{Array, Trial};

/// Logits are sums of terms up to 30 by 30; a gradient of logits is at most the scale, and a row's
/// are at most twice as much in all.
const NEAR: Near = Near::Rounded(2e3, 16.0);

#[test]
fn a_gpu_agrees_in_one_pass_and_in_two() {
    let sizes = [[1, 1, 1], [9, 4, 33], [7, 24, 130], [70, 16, 72]];
    for (size, options) in sizes.into_iter().zip(every_option()) {
        let inputs = inputs(size);
        let seeds = [Array::f32(&[], vec![1.0])];
        let root = Trial { inputs: &inputs, root: true, ..Trial::default() };
        let apart = Trial { root: false, seeds: Some(&seeds), ..root };
        for trial in [root, apart] {
            Hold { trial, activations: 1, live: None, near: NEAR }.run(&trace(options));
        }
    }
}

#[test]
fn a_gpu_leaves_dead_rows_and_caps_what_it_computes_again() {
    let [n, d, v] = [11, 8, 40];
    let inputs = inputs([n, d, v]);
    let options = LossOptions { chunk_rows: 4, softcap: Some(2.0), ..LossOptions::default() };
    let seeds = [Array::f32(&[], vec![1.0])];
    for live in [0, 6] {
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        Hold { trial, activations: 1, live: Some(live), near: NEAR }.run(&trace(options));
    }
}

#[test]
fn a_gpu_sums_marked_terms_apart() {
    let [n, d, v] = [9, 8, 33];
    let mut inputs = inputs([n, d, v]);
    inputs[2] = Array::i32(&[n], vec![0, 3, 5, 0, 1, 0, 0, -1, 2]);
    let options = LossOptions { chunk_rows: 4, ..LossOptions::default() };
    let trial = Trial { inputs: &inputs, ..Trial::default() };
    Hold { trial, activations: 1, live: None, near: NEAR }.run(&|g, x| {
        let (hidden, scale) = ([x[0], x[1]], x[4]);
        let (loss, marked) = marked_linear_cross_entropy(g, hidden, x[3], x[2], scale, options)?;
        Ok(vec![loss.loss, loss.loss_sum, loss.targets, marked])
    });
}

#[test]
fn chunks_are_launches_over_rows() {
    let inputs = inputs([9, 4, 33]);
    let policy = crate::graph::Policy { target: Target::H200, ..Default::default() };
    let trial = Trial { inputs: &inputs, root: true, policy, ..Trial::default() };
    let options = LossOptions { chunk_rows: 4, ..LossOptions::default() };
    let program = trial.program(&trace(options)).unwrap();
    assert!(program.without_launches().is_empty());
    let text = program.print_launches();
    let first = "scratch[256+528]:f32 = in0[0+4]:f32 · in1ᵀ:f32, m 4 n 33 k 4, bias in2\n";
    let last = "out5:f32 += scratch[256+528]ᵀ:f32 · in0[8+1]:f32, m 33 n 4 k 1\n";
    assert!(text.contains(first) && text.contains(last), "{text}");
}
