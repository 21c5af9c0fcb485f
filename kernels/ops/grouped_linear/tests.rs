//! `grouped_linear` and its gradients against f64: odd sizes, empty experts, dead rows, reuse.

use crate::emulator::hold::{Hold, Near};
use crate::graph::{Graph, Tensor};
use crate::ops::add::add;
use crate::ops::grouped_linear::{GroupedLinear, oracle};
use crate::testing::{Array, Trial, assert_close, noise, numeric_gradient, wide};

#[test]
fn products_and_gradients_match_and_dead_rows_stay() {
    let cases: [(&[i32], usize, usize, usize); 4] = [
        (&[0, 1], 1, 1, 1),
        (&[0, 2, 2, 5], 7, 3, 5),
        (&[0, 0, 0], 2, 3, 4),
        (&[0, 17, 17, 18, 30], 33, 9, 6),
    ];
    for (start, capacity, out, inner) in cases {
        let experts = start.len() - 1;
        let live = start[experts] as usize;
        let (mut x, w) = (noise(1, capacity * inner), noise(2, experts * out * inner));
        let mut dy = noise(3, capacity * out);
        x[live * inner..].fill(f32::NAN);
        dy[live * out..].fill(f32::NAN);
        let inputs = [
            Array::f32(&[capacity, inner], x.clone()),
            Array::f32(&[experts, out, inner], w.clone()),
            Array::i32(&[experts + 1], start.to_vec()),
            Array::i32(&[], vec![live as i32]),
        ];
        let seeds = [Array::f32(&[capacity, out], dy.clone())];
        let trace = |g: &mut Graph<'_>, x: &[Tensor]| {
            let rows = g.with_live(x[0], x[3]);
            Ok(vec![g.apply_one(GroupedLinear, &[rows, x[1], x[2]])?])
        };
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        let got = trial.run(&trace).unwrap();
        let truth = [wide(&x[..live * inner]), wide(&w)];
        let f = |x: &[Vec<f64>]| oracle::forward(&x[0], &x[1], start, out, inner);
        let y = got.outputs[0].floats();
        assert_close(&y[..live * out], &f(&truth), 1e-5, 1e-5, "y");
        assert!(y[live * out..].iter().all(|y| y.is_nan()));
        let seed = wide(&dy[..live * out]);
        let dx = got.gradients[0].floats();
        let expected = numeric_gradient(&truth, 0, &seed, &f);
        assert_close(&dx[..live * inner], &expected, 1e-4, 1e-4, "dx");
        assert!(dx[live * inner..].iter().all(|x| x.is_nan()));
        let expected = numeric_gradient(&truth, 1, &seed, &f);
        assert_close(got.gradients[1].floats(), &expected, 1e-4, 1e-4, "dw");
    }
}

#[test]
fn a_weight_used_twice_gathers_both_gradients_and_an_idle_expert_gets_zeros() {
    let inputs = [
        Array::f32(&[2, 1], vec![2.0, 3.0]),
        Array::f32(&[2, 1, 1], vec![1.0, 1.0]),
        Array::i32(&[3], vec![0, 2, 2]),
    ];
    let seeds = [Array::f32(&[2, 1], vec![1.0, 10.0])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let got = trial
        .run(&|g, x| {
            let a = g.apply_one(GroupedLinear, &[x[0], x[1], x[2]])?;
            let b = g.apply_one(GroupedLinear, &[x[0], x[1], x[2]])?;
            Ok(vec![add(g, a, b)?])
        })
        .unwrap();
    assert_eq!(got.outputs[0].floats(), [4.0, 6.0]);
    assert_eq!(got.gradients[0].floats(), [2.0, 20.0]);
    assert_eq!(got.gradients[1].floats(), [64.0, 0.0]);
}

#[test]
fn a_gpu_agrees() {
    let many: Vec<i32> = (0..=40).map(|e| e / 3 * 2).collect();
    // Small and large tiles, more of them than the ring holds, rows that copies cannot align; idle
    // experts at the ends and between, one that takes all, more than a warp has lanes.
    let cases: [(&[i32], usize, usize, usize); 6] = [
        (&[0, 1], 1, 1, 1),
        (&[0, 0, 17, 17, 100, 140, 140], 150, 70, 200),
        (&[0, 0, 150, 150], 150, 24, 33),
        (&[0, 130, 131, 300], 400, 136, 130),
        (&many, 80, 8, 40),
        (&[0, 0, 0], 2, 3, 4),
    ];
    for (start, capacity, out, inner) in cases {
        let experts = start.len() - 1;
        let inputs = [
            Array::f32(&[capacity, inner], noise(1, capacity * inner)),
            Array::f32(&[experts, out, inner], noise(2, experts * out * inner)),
            Array::i32(&[experts + 1], start.to_vec()),
        ];
        let seeds = [Array::f32(&[capacity, out], noise(3, capacity * out))];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        // Outliers of 30 among some hundred terms below 1.
        let (live, near) = (Some(start[experts] as usize), Near::Sums(2e3));
        Hold { trial, activations: 1, live, near }
            .run(&|g, x| Ok(vec![g.apply_one(GroupedLinear, &[x[0], x[1], x[2]])?]));
    }
}
