//! `linear_cross_entropy` against f64: odd sizes, every option, ignored and dead rows, chunks,
//! a weight used twice, no targets, outliers.

use crate::dtype::{DType, Precision};
use crate::error::Result;
use crate::graph::{Graph, Policy, Tensor};
use crate::ops::add::add;
use crate::ops::embedding::embedding;
use crate::ops::linear_cross_entropy::{
    LossOptions, linear_cross_entropy, marked_linear_cross_entropy, oracle,
};
use crate::ops::scale::scale;
use crate::testing::{Array, Outcome, Trace, Trial, assert_close, noise, numeric_gradient, wide};

const SCALE: f32 = 0.25;

type Traced = Result<Vec<Tensor>>;

pub(super) fn every_option() -> [LossOptions; 4] {
    let plain = LossOptions::default();
    [
        plain,
        LossOptions { chunk_rows: 2, z_loss: 1e-2, ..plain },
        LossOptions { chunk_rows: 3, gpu_chunks: 2, label_smoothing: 0.1, ..plain },
        LossOptions {
            chunk_rows: 64,
            softcap: Some(2.0),
            label_smoothing: 0.2,
            z_loss: 1e-3,
            ..plain
        },
    ]
}

fn labels(n: usize, v: usize) -> Vec<i32> {
    (0..n).map(|i| if i % 4 == 2 { -1 } else { (i * 5 % v) as i32 }).collect()
}

pub(super) fn inputs([n, d, v]: [usize; 3]) -> Vec<Array> {
    vec![
        Array::f32(&[n, d], noise(1, n * d)),
        Array::f32(&[v, d], noise(2, v * d)),
        Array::f32(&[v], noise(3, v)),
        Array::i32(&[n], labels(n, v)),
        Array::f32(&[], vec![SCALE]),
    ]
}

pub(super) fn trace(
    options: LossOptions,
) -> impl Fn(&mut Graph<'_>, &[Tensor]) -> Result<Vec<Tensor>> {
    move |g, x| {
        let loss = linear_cross_entropy(g, x[0], x[1], Some(x[2]), x[3], x[4], options)?;
        Ok(vec![loss.loss, loss.loss_sum, loss.targets])
    }
}

#[test]
fn loss_and_gradients_match_the_oracle() {
    for size in [[1, 1, 1], [3, 5, 7], [9, 4, 33], [20, 3, 70]] {
        for options in every_option() {
            let [n, d, v] = size;
            let inputs = inputs(size);
            let seeds = [Array::f32(&[], vec![3.0])];
            let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
            let got = trial.run(&trace(options)).unwrap();
            let x: Vec<Vec<f64>> = inputs[..3].iter().map(|x| wide(x.floats())).collect();
            let sums =
                |x: &[Vec<f64>]| oracle::sums([&x[0], &x[1], &x[2]], &labels(n, v), d, &options);
            let [terms, cross_entropies] = sums(&x);
            let loss = f64::from(SCALE) * terms;
            assert_close(got.outputs[0].floats(), &[loss], 1e-5, 1e-5, "loss");
            assert_close(got.outputs[1].floats(), &[cross_entropies], 1e-5, 1e-5, "sum");
            let targets = labels(n, v).iter().filter(|l| **l >= 0).count();
            assert_eq!(got.outputs[2].ints(), [targets as i32]);
            let seed = [3.0 * f64::from(SCALE)];
            for (i, got) in got.gradients[..3].iter().enumerate() {
                let expected = numeric_gradient(&x, i, &seed, &|x| vec![sums(x)[0]]);
                let what = format!("{size:?} {options:?} gradient {i}");
                assert_close(got.floats(), &expected, 5e-5, 2e-4, &what);
            }
            let alone = Trial { threads: 1, ..trial }.run(&trace(options)).unwrap();
            assert_eq!(got.outputs, alone.outputs);
            assert_eq!(got.gradients[..3], alone.gradients[..3]);
        }
    }
}

#[test]
fn marked_terms_are_summed_apart_and_change_nothing_else() {
    let [n, d, v] = [9, 4, 33];
    for options in every_option() {
        let mut inputs = inputs([n, d, v]);
        let seeds = [Array::f32(&[], vec![3.0])];
        let run = |inputs: &[Array], trace: &dyn Fn(&mut Graph<'_>, &[Tensor]) -> Traced| {
            Trial { inputs, seeds: Some(&seeds), ..Trial::default() }.run(trace).unwrap()
        };
        // The third row has no label, so its mark counts for nothing.
        let marks = [0, 3, 5, 0, 1, 0, 0, -1, 2];
        inputs[2] = Array::i32(&[n], marks.to_vec());
        let got = run(&inputs, &|g, x| {
            let (hidden, scale) = ([x[0], x[1]], x[4]);
            let (loss, marked) =
                marked_linear_cross_entropy(g, hidden, x[3], x[2], scale, options)?;
            Ok(vec![loss.loss, loss.loss_sum, loss.targets, marked])
        });
        let plain = run(&inputs, &|g, x| {
            let loss = linear_cross_entropy(g, x[0], x[1], None, x[3], x[4], options)?;
            Ok(vec![loss.loss, loss.loss_sum, loss.targets])
        });
        assert_eq!(got.outputs[..3], plain.outputs[..]);
        assert_eq!(got.gradients[..2], plain.gradients[..2]);
        let kept = |(i, label): (usize, i32)| if marks[i] > 0 { label } else { -1 };
        let labels: Vec<i32> = labels(n, v).into_iter().enumerate().map(kept).collect();
        let x: Vec<Vec<f64>> = inputs[..2].iter().map(|x| wide(x.floats())).collect();
        let [_, expected] = oracle::sums([&x[0], &x[1], &[]], &labels, d, &options);
        assert_close(got.outputs[3].floats(), &[expected], 1e-5, 1e-5, "marked");
    }
}

#[test]
fn a_tied_weight_gathers_both_gradients() {
    let (n, d, v) = (6, 5, 7);
    let tokens = vec![3, 1, 3, 0, 6, 2];
    let inputs = [
        Array::f32(&[v, d], noise(2, v * d)),
        Array::i32(&[n], tokens.clone()),
        Array::i32(&[n], labels(n, v)),
        Array::f32(&[], vec![SCALE]),
    ];
    let seeds = [Array::f32(&[], vec![1.0])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let options = LossOptions { chunk_rows: 4, ..LossOptions::default() };
    let got = trial.run(&|g, x| {
        let hidden = embedding(g, x[1], x[0])?;
        Ok(vec![linear_cross_entropy(g, hidden, x[0], None, x[2], x[3], options)?.loss])
    });
    let f = |x: &[Vec<f64>]| {
        let row = |&t: &i32| x[0][t as usize * d..][..d].to_vec();
        let hidden: Vec<f64> = tokens.iter().flat_map(row).collect();
        vec![oracle::sums([&hidden, &x[0], &[]], &labels(n, v), d, &options)[0]]
    };
    let x = [wide(inputs[0].floats())];
    let expected = numeric_gradient(&x, 0, &[f64::from(SCALE)], &f);
    assert_close(got.unwrap().gradients[0].floats(), &expected, 1e-4, 1e-4, "dw");
}

#[test]
fn without_targets_everything_is_zero() {
    let mut inputs = inputs([3, 2, 4]);
    inputs[3] = Array::i32(&[3], vec![-1; 3]);
    inputs[4] = Array::f32(&[], vec![f32::INFINITY]);
    let seeds = [Array::f32(&[], vec![0.0])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let got = trial.run(&trace(LossOptions::default())).unwrap();
    assert_eq!(got.outputs[0].floats(), [0.0]);
    assert_eq!(got.outputs[1].floats(), [0.0]);
    assert_eq!(got.outputs[2].ints(), [0]);
    for gradient in &got.gradients[..3] {
        assert!(gradient.floats().iter().all(|&x| x == 0.0));
    }
}

#[test]
fn dead_rows_are_neither_read_nor_written() {
    let [n, d, v] = [7, 3, 5];
    for live in [0, 4] {
        let mut data = noise(1, n * d);
        data[live * d..].fill(f32::NAN);
        let mut ids = labels(n, v);
        ids[live..].fill(0);
        let mut inputs = inputs([n, d, v]);
        inputs[0] = Array::f32(&[n, d], data);
        inputs[3] = Array::i32(&[n], ids.clone());
        inputs.push(Array::i32(&[], vec![live as i32]));
        let seeds = [Array::f32(&[], vec![1.0])];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let options = LossOptions { chunk_rows: 3, ..LossOptions::default() };
        let got = trial
            .run(&|g, x| {
                let hidden = g.with_live(x[0], x[5]);
                trace(options)(g, &[hidden, x[1], x[2], x[3], x[4]])
            })
            .unwrap();
        let x: Vec<Vec<f64>> = inputs[..3].iter().map(|x| wide(x.floats())).collect();
        let rows = [&x[0][..live * d], &x[1], &x[2]];
        let [sum, _] = oracle::sums(rows, &ids, d, &options);
        assert_close(got.outputs[0].floats(), &[f64::from(SCALE) * sum], 1e-6, 1e-6, "loss");
        let dhidden = got.gradients[0].floats();
        assert!(dhidden[..live * d].iter().all(|x| x.is_finite()));
        assert!(dhidden[live * d..].iter().all(|x| x.is_nan()));
        for gradient in &got.gradients[1..3] {
            assert!(gradient.floats().iter().all(|x| x.is_finite() && (live > 0 || *x == 0.0)));
        }
    }
}

#[test]
fn logits_that_would_overflow_an_exponential_do_not() {
    let inputs = [
        Array::f32(&[1, 1], vec![1000.0]),
        Array::f32(&[3, 1], vec![1.0, -1.0, 0.9]),
        Array::i32(&[1], vec![2]),
        Array::f32(&[], vec![1.0]),
    ];
    let seeds = [Array::f32(&[], vec![1.0])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let options = LossOptions::default();
    let got = trial
        .run(&|g, x| Ok(vec![linear_cross_entropy(g, x[0], x[1], None, x[2], x[3], options)?.loss]))
        .unwrap();
    assert_close(got.outputs[0].floats(), &[100.0], 1e-3, 0.0, "loss");
    assert_eq!(got.gradients[1].floats(), [1000.0, 0.0, -1000.0]);
}

#[test]
fn a_class_forbidden_by_its_bias_weighs_nothing() {
    let forbidden = f32::NEG_INFINITY;
    let inputs = [
        Array::f32(&[1, 1], vec![1.0]),
        Array::f32(&[3, 1], vec![0.5, 9.0, 0.5]),
        Array::f32(&[3], vec![0.0, forbidden, 0.0]),
        Array::i32(&[1], vec![0]),
        Array::f32(&[], vec![1.0]),
    ];
    let seeds = [Array::f32(&[], vec![1.0])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let got = trial.run(&trace(LossOptions::default())).unwrap();
    assert_close(got.outputs[0].floats(), &[2f64.ln()], 1e-7, 0.0, "loss");
    assert_close(got.gradients[1].floats(), &[-0.5, 0.0, 0.5], 1e-6, 0.0, "dw");
}

#[test]
fn a_label_outside_the_classes_is_not_a_number() {
    let mut inputs = inputs([2, 2, 3]);
    inputs[3] = Array::i32(&[2], vec![0, 3]);
    let trial = Trial { inputs: &inputs, ..Trial::default() };
    let got = trial.run(&trace(LossOptions::default())).unwrap();
    assert!(got.outputs[0].floats()[0].is_nan());
}

#[test]
fn wrong_options_and_operands_are_refused() {
    let inputs = inputs([2, 2, 3]);
    let trial = Trial { inputs: &inputs, ..Trial::default() };
    let options = LossOptions { chunk_rows: 0, ..LossOptions::default() };
    let error = trial.run(&trace(options)).unwrap_err().to_string();
    assert!(error.contains("out of range"), "{error}");
    let swapped = |g: &mut Graph<'_>, x: &[Tensor]| {
        trace(LossOptions::default())(g, &[x[0], x[1], x[1], x[3], x[4]])
    };
    let error = trial.run(&swapped).unwrap_err().to_string();
    assert!(error.contains("the bias is f32[3, 2], not a float [3]"), "{error}");
}

#[test]
fn gradients_in_bf16_are_products_of_rounded_operands() {
    // One row of one element: the gradient of the bias is that of the logits, unrounded, and each
    // product can be followed by hand.
    let (x, w) = (1.003f32, [1.001f32, -0.503, 2.007, 0.251, 1.509]);
    let inputs = [
        Array::f32(&[1, 1], vec![x]),
        Array::f32(&[5, 1], w.to_vec()),
        Array::f32(&[5], vec![0.1, 0.2, -0.3, 0.4, 0.0]),
        Array::i32(&[1], vec![2]),
        Array::f32(&[], vec![SCALE]),
    ];
    let seeds = [Array::f32(&[], vec![1.0])];
    let policy = Policy { matmul: Precision::Bf16, ..Policy::default() };
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), policy, ..Trial::default() };
    let got = trial.run(&trace(LossOptions::default())).unwrap();
    let [dx, dw, dz] = [0, 1, 2].map(|i| got.gradients[i].floats());
    let round = |x: f32| half::bf16::from_f32(x).to_f32();
    let expected: Vec<f32> = dz.iter().map(|&dz| round(dz) * round(x)).collect();
    assert_eq!(dw, expected);
    let sum = dz.iter().zip(w).fold(0.0, |sum, (&dz, w)| round(dz).mul_add(round(w), sum));
    assert_eq!(dx, [sum]);
}

/// Runs it with the loss as what backward starts from, and with a gradient of 1 that is given.
fn both_ways(trial: Trial<'_>, trace: Trace<'_>) -> [Outcome; 2] {
    let seeds = [Array::f32(&[], vec![1.0])];
    let root = Trial { root: true, ..trial }.run(trace).unwrap();
    let given = Trial { seeds: Some(&seeds), ..trial }.run(trace).unwrap();
    let bits = |outcome: &Outcome| -> Vec<Vec<u32>> {
        let floats = outcome.outputs[..2].iter().chain(&outcome.gradients).map(Array::floats);
        floats.map(|x| x.iter().map(|x| x.to_bits()).collect()).collect()
    };
    assert_eq!(bits(&root), bits(&given), "{:?} {:?}", root.ops, given.ops);
    [root, given]
}

#[test]
fn a_root_makes_its_gradients_with_the_same_bits_in_one_pass() {
    for size in [[1, 1, 1], [9, 4, 33], [20, 3, 70]] {
        for options in every_option() {
            for dtype in [DType::F32, DType::Bf16] {
                let mut inputs = inputs(size);
                for x in &mut inputs[..3] {
                    *x = x.stored_as(dtype);
                }
                let trial = Trial { inputs: &inputs, ..Trial::default() };
                let [root, given] = both_ways(trial, &trace(options));
                assert_eq!(root.ops, ["linear_cross_entropy+gradient", "fill"]);
                let apart = ["linear_cross_entropy", "linear_cross_entropy_gradient"];
                assert_eq!(given.ops, apart);
            }
        }
    }
}

#[test]
fn a_root_keeps_the_order_of_a_tied_weights_gradients() {
    let (n, d, v) = (6, 5, 7);
    let inputs = [
        Array::f32(&[v, d], noise(2, v * d)),
        Array::i32(&[n], vec![3, 1, 3, 0, 6, 2]),
        Array::i32(&[n], labels(n, v)),
        Array::f32(&[], vec![SCALE]),
        Array::i32(&[], vec![4]),
    ];
    let trial = Trial { inputs: &inputs, ..Trial::default() };
    let options = LossOptions { chunk_rows: 4, ..LossOptions::default() };
    let once = |g: &mut Graph<'_>, x: &[Tensor]| {
        let tokens = g.with_live(x[1], x[4]);
        let hidden = embedding(g, tokens, x[0])?;
        let loss = linear_cross_entropy(g, hidden, x[0], None, x[2], x[3], options)?;
        Ok(vec![loss.loss, loss.loss_sum])
    };
    let [root, _] = both_ways(trial, &once);
    assert_eq!(root.ops[1], "linear_cross_entropy+gradient");
    // Of two heads over one weight only that may be first which runs first in backward's order.
    let twice = |g: &mut Graph<'_>, x: &[Tensor]| {
        let hidden = embedding(g, x[1], x[0])?;
        let a = linear_cross_entropy(g, hidden, x[0], None, x[2], x[3], options)?;
        let b = linear_cross_entropy(g, hidden, x[0], None, x[2], x[3], options)?;
        Ok(vec![add(g, a.loss, b.loss)?, b.loss_sum])
    };
    let [root, _] = both_ways(trial, &twice);
    let merged = root.ops.iter().filter(|op| op.contains('+')).count();
    let apart = root.ops.iter().filter(|op| **op == "linear_cross_entropy_gradient").count();
    assert_eq!((merged, apart), (1, 1), "{:?}", root.ops);
}

#[test]
fn a_scaled_loss_is_no_root() {
    let inputs = inputs([5, 3, 4]);
    let trial = Trial { inputs: &inputs, root: true, ..Trial::default() };
    let half = |g: &mut Graph<'_>, x: &[Tensor]| {
        let loss = trace(LossOptions::default())(g, x)?;
        Ok(vec![scale(g, loss[0], 0.5)?, loss[0]])
    };
    let got = trial.run(&half).unwrap();
    assert!(got.ops.contains(&"linear_cross_entropy_gradient"), "{:?}", got.ops);
    let whole = trial.run(&trace(LossOptions::default())).unwrap();
    for (half, whole) in got.gradients[..3].iter().zip(&whole.gradients) {
        let expected: Vec<f64> = wide(whole.floats()).iter().map(|x| x / 2.0).collect();
        assert_close(half.floats(), &expected, 1e-9, 1e-6, "half");
    }
}
