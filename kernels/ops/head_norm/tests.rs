//! `head_norm` against `rms_norm`'s oracle, head by head.

use crate::emulator::hold::{Hold, Near};
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::add::add;
use crate::ops::head_norm::{HeadNorm, head_norm};
use crate::ops::rms_norm::oracle;
use crate::testing::{
    Array, Trial, assert_close, forward, gradients, noise, numeric_gradient, wide,
};

const EPS: f32 = 1e-6;

fn inputs(n: usize, norm: HeadNorm, d: usize) -> Vec<Array> {
    let columns = (norm.heads + 2 * norm.kv_heads) * d;
    vec![
        Array::f32(&[n, columns], noise(1, n * columns)),
        Array::f32(&[d], noise(2, d)),
        Array::f32(&[d], noise(3, d)),
    ]
}

fn trace(norm: HeadNorm) -> impl Fn(&mut Graph<'_>, &[Tensor]) -> Result<Vec<Tensor>> {
    move |g, x| Ok(vec![head_norm(g, x[0], x[1], x[2], norm)?])
}

fn truth(norm: HeadNorm, x: &[Vec<f64>]) -> Vec<f64> {
    let head_dim = x[1].len();
    let per_row = norm.heads + 2 * norm.kv_heads;
    x[0].chunks(head_dim)
        .enumerate()
        .flat_map(|(i, head)| match i % per_row {
            h if h < norm.heads => oracle::forward(head, &x[1], f64::from(EPS)),
            h if h < norm.normed() => oracle::forward(head, &x[2], f64::from(EPS)),
            _ => head.to_vec(),
        })
        .collect()
}

fn cases() -> [(usize, HeadNorm, usize); 3] {
    let norm = |heads, kv_heads| HeadNorm { heads, kv_heads, eps: EPS };
    [(1, norm(1, 1), 1), (3, norm(4, 2), 5), (40, norm(3, 1), 16)]
}

#[test]
fn heads_are_normalised_and_gradients_agree() {
    for (n, norm, d) in cases() {
        let inputs = inputs(n, norm, d);
        let x: Vec<Vec<f64>> = inputs.iter().map(|x| wide(x.floats())).collect();
        let got = forward(&inputs, &trace(norm)).unwrap();
        assert_close(got[0].floats(), &truth(norm, &x), 1e-6, 1e-6, "y");
        let Array::Float(shape, ..) = &inputs[0] else { unreachable!("x is a float") };
        let dy = noise(4, x[0].len());
        let got = gradients(&inputs, &[Array::f32(shape, dy.clone())], &trace(norm)).unwrap();
        for (i, got) in got.iter().enumerate() {
            let f = |x: &[Vec<f64>]| truth(norm, x);
            let expected = numeric_gradient(&x, i, &wide(&dy), &f);
            assert_close(got.floats(), &expected, 1e-3, 2e-4, &format!("{norm:?} gradient {i}"));
        }
    }
}

#[test]
fn gradients_accumulate_and_dead_rows_are_untouched() {
    let (n, live, d) = (5, 3, 4);
    let norm = HeadNorm { heads: 2, kv_heads: 1, eps: EPS };
    let mut inputs = inputs(n, norm, d);
    let columns = 4 * d;
    let Array::Float(_, data, _) = &mut inputs[0] else { unreachable!("x is a float") };
    data[live * columns..].fill(f32::NAN);
    inputs.push(Array::i32(&[], vec![live as i32]));
    let mut dy = noise(4, n * columns);
    dy[live * columns..].fill(f32::NAN);
    let seeds = [Array::f32(&[n, columns], dy)];
    let once = gradients(&inputs, &seeds, &|g, x| {
        let rows = g.with_live(x[0], x[3]);
        trace(norm)(g, &[rows, x[1], x[2]])
    })
    .unwrap();
    assert!(once[0].floats()[..live * columns].iter().all(|x| x.is_finite()));
    assert!(once[0].floats()[live * columns..].iter().all(|x| x.is_nan()));
    let twice = gradients(&inputs, &seeds, &|g, x| {
        let rows = g.with_live(x[0], x[3]);
        let a = trace(norm)(g, &[rows, x[1], x[2]])?[0];
        let b = trace(norm)(g, &[rows, x[1], x[2]])?[0];
        Ok(vec![add(g, a, b)?])
    })
    .unwrap();
    for (once, twice) in once.iter().zip(&twice).skip(1) {
        let expected: Vec<f64> = once.floats().iter().map(|&x| 2.0 * f64::from(x)).collect();
        assert_close(twice.floats(), &expected, 1e-6, 1e-6, "twice");
    }
}

#[test]
fn rows_that_are_not_whole_heads_are_refused() {
    let inputs = inputs(2, HeadNorm { heads: 1, kv_heads: 1, eps: EPS }, 4);
    let norm = HeadNorm { heads: 3, kv_heads: 1, eps: EPS };
    let error = forward(&inputs, &trace(norm)).unwrap_err().to_string();
    assert_eq!(error, "head_norm at : x is f32[2, 12]: no 5 heads of one length");
}

#[test]
fn a_gpu_agrees() {
    for (n, (heads, kv_heads), d) in [(1, (1, 1), 1), (70, (4, 2), 8), (9, (3, 1), 130)] {
        let norm = HeadNorm { heads, kv_heads, eps: EPS };
        let inputs = inputs(n, norm, d);
        let columns = (heads + 2 * kv_heads) * d;
        let seeds = [Array::f32(&[n, columns], noise(4, n * columns))];
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
        for live in [None, Some(n.div_ceil(2))] {
            Hold { trial, activations: 1, live, near: Near::Sums(2e3) }.run(&trace(norm));
        }
    }
}
