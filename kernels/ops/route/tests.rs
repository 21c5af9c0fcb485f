//! `route`: choice, ties, bias, weights and their gradient against f64, counts, dead rows.

use crate::dtype::DType;
use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::cast::cast;
use crate::ops::route::{Route, Score, oracle, route};
use crate::testing::{Array, Trial, assert_close, forward, noise, numeric_gradient, wide};

fn rule(top_k: usize, score: Score, normalize: bool) -> Route {
    Route { top_k, score, normalize }
}

fn routed(g: &mut Graph<'_>, x: &[Tensor], rule: Route) -> crate::error::Result<Vec<Tensor>> {
    let (expert, weight, counts) = route(g, x[0], x.get(1).copied(), rule)?;
    Ok(vec![weight, expert, counts])
}

/// The k best by sorting.
fn best(keys: &[f64], k: usize) -> Vec<i32> {
    let mut order: Vec<i32> = (0..keys.len() as i32).collect();
    order.sort_by(|&a, &b| keys[b as usize].total_cmp(&keys[a as usize]).then(a.cmp(&b)));
    order.truncate(k);
    order
}

#[test]
fn choice_weights_counts_and_gradient_match_the_oracle() {
    for (n, experts, k) in [(1, 1, 1), (5, 3, 2), (33, 8, 8), (200, 65, 6)] {
        for (score, normalize) in [
            (Score::Softmax, false),
            (Score::Softmax, true),
            (Score::Sigmoid, false),
            (Score::Sigmoid, true),
        ] {
            let logits: Vec<f32> = noise(5, n * experts).iter().map(|x| 2.0 * x).collect();
            let dweight = noise(6, n * k);
            let inputs = [Array::f32(&[n, experts], logits.clone())];
            let seeds = [Array::f32(&[n, k], dweight.clone())];
            let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
            let got = trial.run(&|g, x| routed(g, x, rule(k, score, normalize))).unwrap();
            let x = wide(&logits);
            let chosen: Vec<i32> = x.chunks(experts).flat_map(|x| best(x, k)).collect();
            assert_eq!(got.outputs[1].ints(), chosen);
            let expected = oracle::weights(&x, experts, &chosen, k, score, normalize);
            assert_close(got.outputs[0].floats(), &expected, 1e-7, 2e-6, "weight");
            for (e, &count) in got.outputs[2].ints().iter().enumerate() {
                assert_eq!(count as usize, chosen.iter().filter(|c| **c == e as i32).count());
            }
            let f = |x: &[Vec<f64>]| oracle::weights(&x[0], experts, &chosen, k, score, normalize);
            if n * experts < 1000 {
                let expected = numeric_gradient(&[x], 0, &wide(&dweight), &f);
                assert_close(got.gradients[0].floats(), &expected, 5e-6, 1e-5, "dlogits");
            }
        }
    }
}

#[test]
fn the_bias_selects_but_does_not_weigh() {
    let logits = vec![1.0, 0.9, 0.8, 0.0];
    for score in [Score::Softmax, Score::Sigmoid] {
        let inputs =
            [Array::f32(&[1, 4], logits.clone()), Array::f32(&[4], vec![0.0, -1.0, 0.0, 2.0])];
        let got = forward(&inputs, &|g, x| routed(g, x, rule(2, score, true))).unwrap();
        assert_eq!(got[1].ints(), [3, 0]);
        let expected = oracle::weights(&wide(&logits), 4, &[3, 0], 2, score, true);
        assert_close(got[0].floats(), &expected, 1e-7, 1e-6, "weight");
        assert_eq!(got[2].ints(), [1, 0, 0, 1]);
    }
}

#[test]
fn ties_go_to_the_lower_expert_and_forbidden_experts_come_last() {
    let inf = f32::NEG_INFINITY;
    let inputs = [Array::f32(&[2, 4], vec![0.5, 0.5, 0.5, 0.5, inf, 1.0, inf, inf])];
    let got = forward(&inputs, &|g, x| routed(g, x, rule(3, Score::Softmax, true))).unwrap();
    assert_eq!(got[1].ints(), [0, 1, 2, 1, 0, 2]);
    assert_eq!(got[0].floats()[3..], [1.0, 0.0, 0.0]);
}

#[test]
fn dead_rows_are_neither_read_counted_nor_written() {
    let inputs =
        [Array::f32(&[2, 2], vec![2.0, 1.0, f32::NAN, f32::NAN]), Array::i32(&[], vec![1])];
    let seeds = [Array::f32(&[2, 1], vec![1.0, f32::NAN])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let got = trial
        .run(&|g, x| {
            let logits = g.with_live(x[0], x[1]);
            routed(g, &[logits], rule(1, Score::Softmax, false))
        })
        .unwrap();
    assert_eq!(got.outputs[1].ints(), [0, -1]);
    assert_eq!(got.outputs[2].ints(), [1, 0]);
    assert!(got.outputs[0].floats()[1].is_nan());
    let dx = got.gradients[0].floats();
    assert!(dx[0] > 0.0 && dx[1] < 0.0 && dx[2].is_nan() && dx[3].is_nan());
}

#[test]
fn more_experts_than_there_are_is_refused() {
    let inputs = [Array::f32(&[1, 2], vec![0.0; 2])];
    let error = forward(&inputs, &|g, x| routed(g, x, rule(3, Score::Softmax, false))).unwrap_err();
    assert_eq!(error.to_string(), "route at : 3 of 2 experts, of which there may be 1024");
}

#[test]
fn what_is_no_number_comes_last() {
    let nan = f32::NAN;
    let inputs = [Array::f32(&[2, 4], vec![nan, -1.0, f32::NEG_INFINITY, nan, nan, nan, nan, 0.0])];
    let trial = Trial { inputs: &inputs, ..Trial::default() };
    let trace = |g: &mut Graph<'_>, x: &[Tensor]| routed(g, x, rule(4, Score::Sigmoid, false));
    let got = trial.run(&trace).unwrap();
    assert_eq!(got.outputs[1].ints(), [1, 2, 0, 3, 3, 0, 1, 2]);
    Hold { trial, activations: 1, live: None, near: Near::Bits }.run(&trace);
}

#[test]
fn a_gpu_has_the_same_bits() {
    for (n, experts, k) in [(1, 1, 1), (33, 8, 8), (40, 65, 6), (3, 1024, 40), (20, 32, 1)] {
        for (score, normalize) in [
            (Score::Softmax, false),
            (Score::Softmax, true),
            (Score::Sigmoid, false),
            (Score::Sigmoid, true),
        ] {
            // Some experts are equal, some may not be taken.
            let logit = |(i, x): (usize, f32)| match i % 7 {
                3 => f32::NEG_INFINITY,
                5 => 0.25,
                _ => 2.0 * x,
            };
            let logits = noise(5, n * experts).into_iter().enumerate().map(logit).collect();
            let bias = noise(7, experts);
            let inputs = [Array::f32(&[n, experts], logits), Array::f32(&[experts], bias)];
            let seeds = [Array::f32(&[n, k], noise(6, n * k))];
            let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
            for (biased, live) in [(false, Some(n / 2)), (true, None)] {
                Hold { trial, activations: 1, live, near: Near::Bits }.run(&|g, x| {
                    let bias = biased.then(|| cast(g, x[1], DType::F32)).transpose()?;
                    let rule = rule(k, score, normalize);
                    let (expert, weight, counts) = route(g, x[0], bias, rule)?;
                    let stored = cast(g, weight, g.spec(x[0]).dtype)?;
                    Ok(vec![stored, weight, expert, counts])
                });
            }
        }
    }
}
