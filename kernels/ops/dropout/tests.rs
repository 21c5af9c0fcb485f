//! `dropout`: share, scale, the same mask in backward, and what the mask depends on.

use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::dropout::dropout;
use crate::testing::{Array, Trial, noise};

fn trace(
    rate: f32,
    rows: usize,
) -> impl Fn(&mut Graph<'_>, &[Tensor]) -> crate::error::Result<Vec<Tensor>> {
    move |g, x| Ok(vec![dropout(g, x[0], rate, rows)?])
}

fn ones(n: usize, c: usize) -> [Array; 1] {
    [Array::f32(&[n, c], vec![1.0; n * c])]
}

#[test]
fn the_share_is_the_rate_and_the_rest_is_scaled() {
    let inputs = ones(200, 300);
    let got = Trial { inputs: &inputs, ..Trial::default() }.run(&trace(0.25, 10)).unwrap();
    let y = got.outputs[0].floats();
    assert!(y.iter().all(|&y| y == 0.0 || y == 1.0 / 0.75));
    let dropped = y.iter().filter(|&&y| y == 0.0).count() as f64 / 60_000.0;
    assert!((dropped - 0.25).abs() < 0.01, "{dropped}");
}

#[test]
fn backward_draws_the_same_mask() {
    let (n, c) = (6, 11);
    let (x, dy) = (noise(1, n * c), noise(2, n * c));
    let inputs = [Array::f32(&[n, c], x)];
    let seeds = [Array::f32(&[n, c], dy.clone())];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let got = trial.run(&trace(0.5, 3)).unwrap();
    let ones = ones(n, c);
    let mask = Trial { inputs: &ones, ..Trial::default() }.run(&trace(0.5, 3)).unwrap();
    let mask = mask.outputs[0].floats();
    let expected: Vec<f32> = dy.iter().zip(mask).map(|(dy, m)| dy * m).collect();
    assert_eq!(got.gradients[0].floats(), expected);
    assert!(mask.contains(&0.0) && mask.contains(&2.0));
}

#[test]
fn the_mask_belongs_to_the_sample_wherever_it_lies() {
    let (n, c, rows) = (8, 5, 2);
    let inputs = ones(n, c);
    let mask = |step, first_sample, threads| {
        let trial = Trial { inputs: &inputs, step, first_sample, threads, ..Trial::default() };
        trial.run(&trace(0.5, rows)).unwrap().outputs[0].floats().to_vec()
    };
    let base = mask(0, 0, 2);
    assert_eq!(base, mask(0, 0, 1));
    // One sample further on: everything moves up by one sample.
    assert_eq!(base[rows * c..], mask(0, 1, 2)[..(n - rows) * c]);
    assert_ne!(base, mask(1, 0, 2));
    assert_ne!(base[..rows * c], base[rows * c..2 * rows * c]);
}

#[test]
fn two_nodes_of_one_path_draw_different_masks() {
    let inputs = ones(4, 40);
    let trial = Trial { inputs: &inputs, ..Trial::default() };
    let got =
        trial.run(&|g, x| Ok(vec![dropout(g, x[0], 0.5, 1)?, dropout(g, x[0], 0.5, 1)?])).unwrap();
    assert_ne!(got.outputs[0], got.outputs[1]);
}

#[test]
fn a_dropped_nan_is_gone_and_dead_rows_are_untouched() {
    let inputs = [Array::f32(&[4, 50], vec![f32::NAN; 200]), Array::i32(&[], vec![2])];
    let trial = Trial { inputs: &inputs, ..Trial::default() };
    let got = trial.run(&|g, x| {
        let rows = g.with_live(x[0], x[1]);
        Ok(vec![dropout(g, rows, 0.5, 1)?])
    });
    let got = got.unwrap();
    let y = got.outputs[0].floats();
    assert!(y[..100].contains(&0.0) && y[..100].iter().all(|&y| y == 0.0 || y.is_nan()));
    assert!(y[100..].iter().all(|y| y.is_nan()));
}

#[test]
fn a_rate_of_zero_is_no_node_and_bad_rates_are_refused() {
    let inputs = ones(2, 2);
    let trial = Trial { inputs: &inputs, ..Trial::default() };
    let got = trial.run(&|g, x| {
        let same = dropout(g, x[0], 0.0, 1)?;
        assert_eq!(same, x[0]);
        Ok(vec![same])
    });
    assert_eq!(got.unwrap().outputs[0].floats(), [1.0; 4]);
    let error = trial.run(&trace(1.0, 1)).unwrap_err().to_string();
    assert_eq!(error, "dropout at : a rate of 1, not in 0..1");
    let error = trial.run(&trace(0.5, 3)).unwrap_err().to_string();
    assert!(error.contains("no whole samples of 3 rows"), "{error}");
}

#[test]
fn a_gpu_draws_the_same() {
    for (n, d, rows) in [(6, 5, 3), (300, 24, 100)] {
        let inputs = [Array::f32(&[n, d], noise(1, n * d))];
        let seeds = [Array::f32(&[n, d], noise(2, n * d))];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let trial = Trial { step: 7, first_sample: u64::from(u32::MAX), ..trial };
        for live in [None, Some(n / 2)] {
            let hold = Hold { trial, activations: 1, live, near: Near::Bits };
            hold.run(&|g, x| Ok(vec![dropout(g, x[0], 0.3, rows)?]));
        }
    }
}
