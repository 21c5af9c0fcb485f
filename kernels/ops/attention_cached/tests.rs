//! Decoding row by row gives the bits of causal attention over the whole sequence.

use crate::dtype::DType;
use crate::emulator::hold::{Hold, Near};
use crate::graph::Tensor;
use crate::ops::attention::{AttentionSpec, Mask, attention};
use crate::ops::attention_cached::{CacheSpec, Caches, Places, attention_cached, cache_append};
use crate::testing::{Array, Trial, forward, noise};

fn spec(heads: usize, kv_heads: usize, head_dim: usize, sequences: usize) -> CacheSpec {
    CacheSpec { heads, kv_heads, head_dim, sequences, positions: 200, window: None, scale: None }
}

/// Caches full of NaN: nothing may be read that was not written.
fn caches(spec: &CacheSpec) -> [Array; 2] {
    let shape = [spec.sequences, spec.positions, spec.kv_heads * spec.head_dim];
    let cache = || Array::f32(&shape, vec![f32::NAN; shape.iter().product()]);
    [cache(), cache()]
}

/// `positions` and `sequences`, as they come.
fn places(x: &[Tensor]) -> Places {
    Places { positions: x[0], sequences: x[1] }
}

/// Causal attention over sequences of `length` rows.
fn whole(spec: &CacheSpec, length: usize, qkv: &[f32]) -> Vec<f32> {
    let (n, columns) = (spec.sequences * length, qkv.len() / spec.sequences / length);
    let full = AttentionSpec {
        heads: spec.heads,
        kv_heads: spec.kv_heads,
        head_dim: spec.head_dim,
        sequence_length: length,
        mask: Mask::Causal,
        window: spec.window,
        scale: spec.scale,
    };
    let inputs = [Array::f32(&[n, columns], qkv.to_vec()), Array::i32(&[n], vec![0; n])];
    let got = forward(&inputs, &|g, x| Ok(vec![attention(g, x[0], x[1], full)?])).unwrap();
    got[0].floats().to_vec()
}

#[test]
fn decoding_gives_the_bits_of_the_whole_sequence() {
    for (spec, length) in [
        (spec(1, 1, 1, 1), 3),
        (spec(4, 2, 8, 2), 70),
        (CacheSpec { window: Some(9), scale: Some(0.5), ..spec(2, 1, 5, 3) }, 40),
        (CacheSpec { window: Some(66), ..spec(2, 2, 4, 1) }, 150),
    ] {
        let (b, columns) = (spec.sequences, (spec.heads + 2 * spec.kv_heads) * spec.head_dim);
        let qkv = noise(1, b * length * columns);
        let expected = whole(&spec, length, &qkv);
        // Step t decodes row t of every sequence.
        let mut inputs = Vec::new();
        for t in 0..length {
            let rows = (0..b).flat_map(|s| qkv[(s * length + t) * columns..][..columns].to_vec());
            inputs.push(Array::f32(&[b, columns], rows.collect()));
            inputs.push(Array::i32(&[b], vec![t as i32; b]));
            inputs.push(Array::i32(&[b], (0..b as i32).collect()));
        }
        let states = caches(&spec);
        let trial = Trial { inputs: &inputs, states: &states, ..Trial::default() };
        let got = trial
            .run(&|g, x| {
                let (operands, states) = x.split_at(3 * length);
                let caches = Caches { keys: states[0], values: states[1] };
                let decode = |x: &[_]| attention_cached(g, x[0], places(&x[1..]), caches, spec);
                operands.chunks(3).map(decode).collect()
            })
            .unwrap();
        let own = spec.heads * spec.head_dim;
        for (t, out) in got.outputs.iter().enumerate() {
            for (s, out) in out.floats().chunks(own).enumerate() {
                assert_eq!(out, &expected[(s * length + t) * own..][..own], "{spec:?} {t}");
            }
        }
    }
}

#[test]
fn a_prefill_fills_the_caches_for_the_rows_after_it() {
    let (spec, length) = (spec(2, 1, 6, 2), 20);
    let columns = 24;
    let qkv = noise(2, 2 * length * columns);
    let expected = whole(&spec, length, &qkv);
    let part = |rows: std::ops::Range<usize>| -> Vec<f32> {
        let sequences = qkv.chunks(length * columns);
        sequences.flat_map(|s| s[rows.start * columns..rows.end * columns].to_vec()).collect()
    };
    // 17 rows at once, then three rows at once.
    let positions = |rows: std::ops::Range<i32>| [rows.clone(), rows].into_iter().flatten();
    let sequences = |rows: usize| [vec![0; rows], vec![1; rows]].concat();
    let inputs = [
        Array::f32(&[34, columns], part(0..17)),
        Array::i32(&[34], positions(0..17).collect()),
        Array::i32(&[34], sequences(17)),
        Array::f32(&[6, columns], part(17..20)),
        Array::i32(&[6], positions(17..20).collect()),
        Array::i32(&[6], sequences(3)),
    ];
    let states = caches(&spec);
    let trial = Trial { inputs: &inputs, states: &states, ..Trial::default() };
    let got = trial
        .run(&|g, x| {
            let caches = Caches { keys: x[6], values: x[7] };
            cache_append(g, x[0], places(&x[1..]), caches, spec)?;
            Ok(vec![attention_cached(g, x[3], places(&x[4..]), caches, spec)?])
        })
        .unwrap();
    let own = 12;
    for (row, out) in got.outputs[0].floats().chunks(own).enumerate() {
        let at = row / 3 * length + 17 + row % 3;
        assert_eq!(out, &expected[at * own..][..own], "{row}");
    }
}

#[test]
fn rows_of_several_sequences_come_in_any_number() {
    // Two rows of the second sequence's prompt beside the third row of the first.
    let (spec, length, columns) = (spec(2, 2, 3, 2), 3, 18);
    let qkv = noise(7, 2 * length * columns);
    let expected = whole(&spec, length, &qkv);
    let row = |sequence: usize, at: usize| &qkv[(sequence * length + at) * columns..][..columns];
    let rows = |named: &[(usize, usize)]| -> Vec<f32> {
        named.iter().flat_map(|&(sequence, at)| row(sequence, at).to_vec()).collect()
    };
    let runs: [&[(usize, usize)]; 2] = [&[(0, 0), (0, 1)], &[(1, 0), (0, 2), (1, 1)]];
    let mut inputs = Vec::new();
    for run in runs {
        let n = run.len();
        inputs.push(Array::f32(&[n, columns], rows(run)));
        inputs.push(Array::i32(&[n], run.iter().map(|r| r.1 as i32).collect()));
        inputs.push(Array::i32(&[n], run.iter().map(|r| r.0 as i32).collect()));
    }
    let states = caches(&spec);
    let trial = Trial { inputs: &inputs, states: &states, ..Trial::default() };
    let got = trial
        .run(&|g, x| {
            let caches = Caches { keys: x[6], values: x[7] };
            let step = |x: &[Tensor]| attention_cached(g, x[0], places(&x[1..]), caches, spec);
            x[..6].chunks(3).map(step).collect()
        })
        .unwrap();
    let own = spec.heads * spec.head_dim;
    for (run, outputs) in runs.into_iter().zip(&got.outputs) {
        for (&(sequence, at), out) in run.iter().zip(outputs.floats().chunks(own)) {
            assert_eq!(out, &expected[(sequence * length + at) * own..][..own], "{sequence} {at}");
        }
    }
}

#[test]
fn rows_without_a_place_touch_nothing() {
    let spec = spec(1, 1, 2, 4);
    let inputs = [
        Array::f32(&[5, 6], noise(1, 30)),
        Array::i32(&[5], vec![-1, 200, 0, 0, 0]),
        Array::i32(&[5], vec![0, 1, 2, 4, 3]),
        Array::i32(&[], vec![4]),
    ];
    let states = caches(&spec);
    let trial = Trial { inputs: &inputs, states: &states, ..Trial::default() };
    let got = trial
        .run(&|g, x| {
            let qkv = g.with_live(x[0], x[3]);
            let caches = Caches { keys: x[4], values: x[5] };
            Ok(vec![attention_cached(g, qkv, places(&x[1..]), caches, spec)?])
        })
        .unwrap();
    let out = got.outputs[0].floats();
    assert_eq!(out[..2], [0.0, 0.0]);
    assert!(out[2..4].iter().all(|x| x.is_nan()));
    // The first position attends to itself: its own value.
    assert_eq!(out[4..6], inputs[0].floats()[16..18]);
    assert!(out[6..8].iter().all(|x| x.is_nan()), "no such sequence");
    assert!(out[8..].iter().all(|x| x.is_nan()), "a dead row");
    for state in &got.states {
        let written = state.floats().iter().filter(|x| !x.is_nan()).count();
        assert_eq!(written, 2);
    }
}

#[test]
fn narrow_caches_are_rounded_where_they_are_stored() {
    let spec = spec(1, 1, 2, 1);
    let qkv = Array::Float(vec![1, 6], vec![1.0, 1.0, 1.0, 1.0, 3.0, 5.0], DType::Bf16);
    let inputs = [qkv, Array::i32(&[1], vec![0]), Array::i32(&[1], vec![0])];
    let cache = Array::Float(vec![1, 200, 2], vec![f32::NAN; 400], DType::Bf16);
    let states = [cache.clone(), cache];
    let trial = Trial { inputs: &inputs, states: &states, ..Trial::default() };
    let got = trial.run(&|g, x| {
        let caches = Caches { keys: x[3], values: x[4] };
        Ok(vec![attention_cached(g, x[0], places(&x[1..]), caches, spec)?])
    });
    assert_eq!(got.unwrap().outputs[0].floats(), [3.0, 5.0]);
}

#[test]
fn caches_of_another_size_are_refused() {
    let spec = spec(1, 1, 2, 1);
    let place = || Array::i32(&[1], vec![0]);
    let inputs = [Array::f32(&[1, 6], noise(1, 6)), place(), place()];
    let states = caches(&CacheSpec { positions: 100, ..spec });
    let trial = Trial { inputs: &inputs, states: &states, ..Trial::default() };
    let error = trial.run(&|g, x| {
        let caches = Caches { keys: x[3], values: x[4] };
        Ok(vec![attention_cached(g, x[0], places(&x[1..]), caches, spec)?])
    });
    let expected = "cache_append at : a cache is f32[1, 100, 2], not [1, 200, 2]";
    assert_eq!(error.unwrap_err().to_string(), expected);
}

#[test]
fn a_gpu_agrees() {
    for spec in [
        CacheSpec { window: Some(150), ..spec(4, 2, 24, 2) },
        CacheSpec { positions: 9, scale: Some(0.3), ..spec(1, 1, 250, 3) },
    ] {
        // A long prompt and a short one, then a row more of each and rows that have no place.
        let long = if spec.positions > 100 { 170 } else { 8 };
        let prompts = (0..long).map(|t| (t, 0)).chain((0..7).map(|t| (t, 1))).collect::<Vec<_>>();
        let rows = vec![(long, 0), (7, 1), (-1, 0), (spec.positions as i32, 0), (0, 9)];
        let columns = (spec.heads + 2 * spec.kv_heads) * spec.head_dim;
        let mut inputs = Vec::new();
        for (seed, rows) in [(2, rows), (1, prompts)] {
            let n = rows.len();
            let qkv = noise(seed, n * columns).into_iter().map(|x| x.clamp(-1.0, 1.0)).collect();
            inputs.push(Array::f32(&[n, columns], qkv));
            inputs.push(Array::i32(&[n], rows.iter().map(|row| row.0).collect()));
            inputs.push(Array::i32(&[n], rows.iter().map(|row| row.1).collect()));
        }
        let states = caches(&spec);
        let trial = Trial { inputs: &inputs, states: &states, ..Trial::default() };
        Hold { trial, activations: 1, live: Some(4), near: Near::Sums(20.0) }.run(&|g, x| {
            let caches = Caches { keys: x[6], values: x[7] };
            cache_append(g, x[3], places(&x[4..]), caches, spec)?;
            Ok(vec![attention_cached(g, x[0], places(&x[1..]), caches, spec)?])
        });
    }
}
