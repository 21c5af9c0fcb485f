//! `combine` and its gradients against f64; a whole mixture of experts against one without
//! grouping.

use crate::dtype::DType;
use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::cast::cast;
use crate::ops::combine::{combine, oracle};
use crate::ops::dispatch::dispatch;
use crate::ops::group_by_expert::group_by_expert;
use crate::ops::grouped_linear::grouped_linear;
use crate::ops::route::{Route, Score, route};
use crate::ops::swiglu::swiglu;
use crate::testing::{Array, Trial, assert_close, noise, numeric_gradient, wide};

#[test]
fn rows_are_weighed_and_gradients_match() {
    for (n, k, d, capacity) in [(1, 1, 1, 1), (5, 2, 3, 16), (20, 3, 17, 60), (6, 2, 4, 7)] {
        let live = capacity.min(n * k);
        let (mut rows, weight, dy) = (noise(1, capacity * d), noise(2, n * k), noise(3, n * d));
        rows[live * d..].fill(f32::NAN);
        let expert: Vec<i32> = (0..n * k).map(|i| (i * 3 % 4) as i32).collect();
        let inputs = [
            Array::f32(&[capacity, d], rows.clone()),
            Array::f32(&[n, k], weight.clone()),
            Array::i32(&[n, k], expert),
        ];
        let seeds = [Array::f32(&[n, d], dy.clone())];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let trace = |g: &mut Graph<'_>, x: &[Tensor]| {
            let grouping = group_by_expert(g, x[2], 4, capacity)?;
            let rows = g.with_live(x[0], grouping.count);
            Ok(vec![combine(g, rows, x[1], &grouping)?, grouping.row_of])
        };
        let got = trial.run(&trace).unwrap();
        let row_of = got.outputs[1].ints().to_vec();
        let f = |x: &[Vec<f64>]| oracle::forward(&x[0], &x[1], &row_of, k, d);
        rows.truncate(live * d);
        let x = [wide(&rows), wide(&weight)];
        assert_close(got.outputs[0].floats(), &f(&x), 1e-5, 1e-6, "y");
        let drows = numeric_gradient(&x, 0, &wide(&dy), &f);
        let dweight = numeric_gradient(&x, 1, &wide(&dy), &f);
        let got_drows = got.gradients[0].floats();
        assert_close(&got_drows[..live * d], &drows, 1e-5, 1e-5, "drows");
        assert!(got_drows[live * d..].iter().all(|x| x.is_nan()));
        assert_close(got.gradients[1].floats(), &dweight, 1e-4, 1e-5, "dweight");
    }
}

/// A mixture of linear experts, token by token, in f64. `x` holds tokens, router, experts.
fn mixture(x: &[Vec<f64>], n: usize, d: usize, experts: usize, k: usize) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut out = Vec::new();
    for token in x[0].chunks(d).take(n) {
        let logits: Vec<f64> = x[1].chunks(d).map(|w| dot(token, w)).collect();
        let mut order: Vec<usize> = (0..experts).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        let sum: f64 = order[..k].iter().map(|&e| logits[e].exp()).sum();
        let mut y = vec![0.0; d];
        for &e in &order[..k] {
            for (o, y) in y.iter_mut().enumerate() {
                let w = &x[2][(e * d + o) * d..][..d];
                *y += logits[e].exp() / sum * dot(token, w);
            }
        }
        out.extend(y);
    }
    out
}

#[test]
fn a_mixture_of_experts_equals_one_without_grouping() {
    for (n, d, experts, k, live) in [(1, 3, 2, 1, 1), (9, 5, 6, 2, 7), (30, 8, 4, 4, 30)] {
        let (mut x, router) = (noise(1, n * d), noise(2, experts * d));
        let (w, dy) = (noise(3, experts * d * d), noise(4, n * d));
        x[live * d..].fill(f32::NAN);
        let inputs = [
            Array::f32(&[n, d], x.clone()),
            Array::f32(&[experts, d], router.clone()),
            Array::f32(&[experts, d, d], w.clone()),
            Array::i32(&[], vec![live as i32]),
        ];
        let seeds = [Array::f32(&[n, d], dy.clone())];
        let trace = |g: &mut Graph<'_>, x: &[Tensor]| {
            let tokens = g.with_live(x[0], x[3]);
            let logits = crate::ops::linear::linear(g, tokens, x[1], None)?;
            let rule = Route { top_k: k, score: Score::Softmax, normalize: true };
            let (expert, weight, _) = route(g, logits, None, rule)?;
            let grouping = group_by_expert(g, expert, experts, n * k)?;
            let rows = dispatch(g, tokens, &grouping)?;
            let rows = grouped_linear(g, rows, x[2], &grouping)?;
            Ok(vec![combine(g, rows, weight, &grouping)?])
        };
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let got = trial.run(&trace).unwrap();
        x.truncate(live * d);
        let truth = [wide(&x), wide(&router), wide(&w)];
        let f = |x: &[Vec<f64>]| mixture(x, live, d, experts, k);
        let y = got.outputs[0].floats();
        assert_close(&y[..live * d], &f(&truth), 1e-5, 1e-5, "y");
        assert!(y[live * d..].iter().all(|x| x.is_nan()));
        for (i, gradient) in got.gradients.iter().enumerate() {
            let expected = numeric_gradient(&truth, i, &wide(&dy[..live * d]), &f);
            let live_part = &gradient.floats()[..expected.len()];
            assert_close(live_part, &expected, 1e-4, 1e-4, ["dx", "drouter", "dw"][i]);
        }
        let alone = Trial { threads: 1, ..trial }.run(&trace).unwrap();
        assert_eq!(got.gradients[2], alone.gradients[2]);
    }
}

#[test]
fn a_gpu_has_the_same_bits_but_for_inner_products() {
    for (n, k, d, capacity) in [(1, 1, 1, 1), (9, 4, 33, 36), (40, 3, 264, 120), (6, 2, 40, 7)] {
        let expert: Vec<i32> = (0..n * k).map(|i| (i * 3 % 4) as i32).collect();
        let (x, dy) = (noise(1, n * d), noise(3, n * d));
        let inner = |(x, dy): (&[f32], &[f32])| -> f64 {
            x.iter().zip(dy).map(|(x, dy)| f64::from((x * dy).abs())).sum()
        };
        let largest = x.chunks(d).zip(dy.chunks(d)).map(inner).fold(0.0, f64::max);
        let inputs = [
            Array::f32(&[n, d], x),
            Array::f32(&[n, k], noise(2, n * k)),
            Array::i32(&[n, k], expert),
        ];
        let seeds = [Array::f32(&[n, d], dy)];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        for (wide, trained, near) in [
            (true, 0, Near::Bits),
            (false, 0, Near::Bits),
            (true, 1, Near::Sums(largest)),
            (false, 1, Near::Sums(largest)),
        ] {
            let live = (k == 3).then_some(n - 1);
            Hold { trial, activations: 2, live, near }.run(&|g, x| {
                let live = g.spec(x[0]).live;
                let expert = live.map_or(x[2], |live| g.with_live(x[2], live));
                let grouping = group_by_expert(g, expert, 4, capacity)?;
                let mut rows = dispatch(g, x[0], &grouping)?;
                let mut weight = if wide { cast(g, x[1], DType::F32)? } else { x[1] };
                let frozen = if trained == 0 { &mut weight } else { &mut rows };
                *frozen = g.stop_gradient(*frozen);
                Ok(vec![combine(g, rows, weight, &grouping)?])
            });
        }
    }
}

#[test]
fn a_gpu_runs_a_whole_mixture() {
    // Tokens, their width, that of an expert, experts, choices, live tokens.
    for [n, d, h, experts, k, live] in
        [[1, 3, 2, 2, 1, 1], [70, 24, 16, 6, 2, 61], [30, 8, 8, 4, 4, 30]]
    {
        let float = |seed, shape: &[usize]| {
            let numbers = noise(seed, shape.iter().product());
            Array::f32(shape, numbers.iter().map(|x| x.clamp(-1.0, 1.0)).collect())
        };
        let inputs = [
            float(1, &[n, d]),
            float(2, &[n, experts]),
            float(3, &[experts, 2 * h, d]),
            float(4, &[experts, d, h]),
        ];
        let seeds = [float(5, &[n, d])];
        // What is rounded between two products may differ in bf16.
        let trial =
            Trial { inputs: &inputs, seeds: Some(&seeds), narrow: false, ..Trial::default() };
        let near = Near::Sums((d * h) as f64);
        Hold { trial, activations: 2, live: Some(live), near }.run(&|g, x| {
            let rule = Route { top_k: k, score: Score::Softmax, normalize: true };
            let (expert, weight, counts) = route(g, x[1], None, rule)?;
            let grouping = group_by_expert(g, expert, experts, n * k)?;
            let rows = dispatch(g, x[0], &grouping)?;
            let rows = grouped_linear(g, rows, x[2], &grouping)?;
            let rows = swiglu(g, rows)?;
            let rows = grouped_linear(g, rows, x[3], &grouping)?;
            Ok(vec![combine(g, rows, weight, &grouping)?, counts])
        });
    }
}
