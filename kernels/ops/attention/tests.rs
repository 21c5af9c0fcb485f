//! `attention` against pairs in f64: odd lengths, grouped heads, documents, windows, dead rows,
//! rows that see nothing, outliers.

use crate::emulator::hold::{Hold, Near};
use crate::error::Result;
use crate::graph::{Graph, Policy, Target, Tensor};
use crate::ops::attention::oracle::Case;
use crate::ops::attention::{AttentionSpec, Mask, attention, attention_within, cross_attention};
use crate::testing::{
    Array, Trace, Trial, assert_close, forward, gradients, noise, numeric_gradient, wide,
};

fn spec(heads: usize, kv_heads: usize, head_dim: usize, length: usize) -> AttentionSpec {
    AttentionSpec {
        heads,
        kv_heads,
        head_dim,
        sequence_length: length,
        mask: Mask::Causal,
        window: None,
        scale: None,
    }
}

/// Documents of 1, 2, 3, ... rows, numbered across sequences.
fn documents(rows: usize) -> Vec<i32> {
    let mut segments: Vec<i32> = (0..).flat_map(|d| vec![d; d as usize + 1]).take(rows).collect();
    segments.rotate_left(rows / 3);
    segments
}

fn specs() -> Vec<(AttentionSpec, usize)> {
    let base = vec![
        (spec(1, 1, 1, 1), 1),
        (spec(2, 1, 3, 5), 2),
        (spec(4, 2, 8, 33), 2),
        (spec(2, 2, 32, 64), 1),
        (spec(3, 1, 20, 65), 1),
        (spec(2, 1, 5, 150), 1),
    ];
    let mut all = Vec::new();
    for (spec, sequences) in base {
        all.push((spec, sequences));
        all.push((AttentionSpec { mask: Mask::Bidirectional, ..spec }, sequences));
        all.push((AttentionSpec { window: Some(7), scale: Some(0.3), ..spec }, sequences));
        let local = AttentionSpec { mask: Mask::Bidirectional, window: Some(70), ..spec };
        all.push((local, sequences));
    }
    all
}

fn packed_columns(spec: &AttentionSpec) -> usize {
    (spec.heads + 2 * spec.kv_heads) * spec.head_dim
}

fn packed_inputs(spec: &AttentionSpec, sequences: usize, segments: Vec<i32>) -> [Array; 2] {
    let (n, columns) = (sequences * spec.sequence_length, packed_columns(spec));
    [Array::f32(&[n, columns], noise(1, n * columns)), Array::i32(&[n], segments)]
}

fn truth(spec: AttentionSpec, segments: &[i32], qkv: &[f64]) -> Vec<f64> {
    let kv_length = spec.sequence_length;
    let (q_segments, kv_segments, extents) = (segments, segments, &[][..]);
    let case = Case { spec, kv_length, q_segments, kv_segments, extents };
    let [q, kv] = case.unpack(qkv);
    case.forward(&q, &kv)
}

#[test]
fn outputs_agree_with_pairs_in_f64() {
    for (spec, sequences) in specs() {
        let n = sequences * spec.sequence_length;
        for segments in [vec![0; n], documents(n)] {
            let inputs = packed_inputs(&spec, sequences, segments.clone());
            let got = forward(&inputs, &|g, x| Ok(vec![attention(g, x[0], x[1], spec)?])).unwrap();
            let expected = truth(spec, &segments, &wide(inputs[0].floats()));
            assert_close(got[0].floats(), &expected, 2e-4, 2e-4, &format!("{spec:?}"));
        }
    }
}

#[test]
fn gradients_agree_with_differences_of_the_oracle() {
    let mut small = vec![
        (spec(1, 1, 1, 1), 1),
        (spec(2, 1, 3, 5), 2),
        (spec(2, 2, 2, 9), 1),
        (spec(2, 1, 2, 70), 1),
    ];
    small.push((AttentionSpec { mask: Mask::Bidirectional, ..small[1].0 }, 2));
    small.push((AttentionSpec { window: Some(3), ..small[2].0 }, 2));
    small.push((AttentionSpec { window: Some(30), ..small[3].0 }, 1));
    for (spec, sequences) in small {
        let n = sequences * spec.sequence_length;
        for segments in [vec![0; n], documents(n)] {
            let inputs = packed_inputs(&spec, sequences, segments.clone());
            let dout = noise(2, n * spec.heads * spec.head_dim);
            let seed = [Array::f32(&[n, spec.heads * spec.head_dim], dout.clone())];
            let got = gradients(&inputs, &seed, &|g, x| Ok(vec![attention(g, x[0], x[1], spec)?]));
            let x = [wide(inputs[0].floats())];
            let f = |x: &[Vec<f64>]| truth(spec, &segments, &x[0]);
            let expected = numeric_gradient(&x, 0, &wide(&dout), &f);
            let got = got.unwrap();
            assert_close(got[0].floats(), &expected, 1e-3, 1e-3, &format!("{spec:?}"));
        }
    }
}

#[test]
fn cross_attention_agrees_with_f64_both_ways() {
    let spec = AttentionSpec { mask: Mask::Bidirectional, ..spec(2, 1, 3, 4) };
    let (sequences, kv_length) = (2, 7);
    let (n, m) = (sequences * 4, sequences * kv_length);
    let q_segments = vec![0, 0, 1, 5, 0, 0, 0, 1];
    let kv_segments = vec![0, 1, 1, 0, 0, 2, 0, 0, 0, 0, 1, 1, 1, 3];
    let inputs = [
        Array::f32(&[n, 6], noise(1, n * 6)),
        Array::f32(&[m, 6], noise(2, m * 6)),
        Array::i32(&[n], q_segments.clone()),
        Array::i32(&[m], kv_segments.clone()),
    ];
    let trace = |g: &mut Graph<'_>, x: &[Tensor]| -> Result<Vec<Tensor>> {
        Ok(vec![cross_attention(g, x[0], x[1], [x[2], x[3]], kv_length, spec)?])
    };
    let (own, keys) = (&q_segments[..], &kv_segments[..]);
    let case = Case { spec, kv_length, q_segments: own, kv_segments: keys, extents: &[] };
    let x = [wide(inputs[0].floats()), wide(inputs[1].floats())];
    let f = |x: &[Vec<f64>]| case.forward(&x[0], &x[1]);
    let got = forward(&inputs, &trace).unwrap();
    assert_close(got[0].floats(), &f(&x), 1e-5, 1e-5, "out");
    // Query 3 has a segment that no key has.
    assert_eq!(got[0].floats()[18..24], [0.0; 6]);
    let dout = noise(3, n * 6);
    let got = gradients(&inputs, &[Array::f32(&[n, 6], dout.clone())], &trace).unwrap();
    for (i, got) in got.iter().enumerate() {
        let expected = numeric_gradient(&x, i, &wide(&dout), &f);
        assert_close(got.floats(), &expected, 1e-4, 1e-3, "gradient");
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let spec = AttentionSpec { scale: Some(1.0), ..spec(1, 1, 2, 3) };
    let qkv = vec![
        1e4, 0.0, 1e4, 0.0, 1.0, 2.0, //
        1e4, 0.0, -1e4, 0.0, 3.0, 4.0, //
        -1e4, 0.0, 0.0, 0.0, 5.0, 6.0,
    ];
    let inputs = [Array::f32(&[3, 6], qkv), Array::i32(&[3], vec![0; 3])];
    let got = forward(&inputs, &|g, x| Ok(vec![attention(g, x[0], x[1], spec)?])).unwrap();
    assert_eq!(got[0].floats(), [1.0, 2.0, 1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn nan_is_not_hidden_by_the_mask_of_a_first_tile() {
    let spec = spec(1, 1, 1, 2);
    let qkv = vec![1.0, f32::NAN, 1.0, 1.0, 1.0, 1.0];
    let inputs = [Array::f32(&[2, 3], qkv), Array::i32(&[2], vec![0, 1])];
    let got = forward(&inputs, &|g, x| Ok(vec![attention(g, x[0], x[1], spec)?])).unwrap();
    assert!(got[0].floats()[0].is_nan());
    assert_eq!(got[0].floats()[1], 1.0);
}

#[test]
fn dead_rows_are_neither_read_nor_written() {
    let (spec, sequences, live) = (spec(2, 1, 3, 70), 3, 99);
    let (n, columns, own) = (210, packed_columns(&spec), 6);
    let segments = documents(n);
    let mut inputs = packed_inputs(&spec, sequences, segments.clone()).to_vec();
    let whole = truth(spec, &segments, &wide(&inputs[0].floats()[..live * columns]));
    let Array::Float(_, data, _) = &mut inputs[0] else { unreachable!("qkv is a float") };
    data[live * columns..].fill(f32::NAN);
    inputs.push(Array::i32(&[], vec![live as i32]));
    let trace = |g: &mut Graph<'_>, x: &[Tensor]| -> Result<Vec<Tensor>> {
        let rows = g.with_live(x[0], x[2]);
        Ok(vec![attention(g, rows, x[1], spec)?])
    };
    let got = forward(&inputs, &trace).unwrap();
    assert_close(&got[0].floats()[..live * own], &whole, 1e-4, 1e-4, "out");
    assert!(got[0].floats()[live * own..].iter().all(|x| x.is_nan()));
    let mut dout = noise(2, n * own);
    dout[live * own..].fill(f32::NAN);
    let got = gradients(&inputs, &[Array::f32(&[n, own], dout)], &trace).unwrap();
    assert!(got[0].floats()[..live * columns].iter().all(|x| x.is_finite()));
    assert!(got[0].floats()[live * columns..].iter().all(|x| x.is_nan()));
}

#[test]
fn contradictions_are_refused() {
    let inputs = packed_inputs(&spec(2, 1, 3, 4), 1, vec![0; 4]);
    let refusal = |spec: AttentionSpec| {
        forward(&inputs, &|g, x| Ok(vec![attention(g, x[0], x[1], spec)?])).unwrap_err().to_string()
    };
    assert_eq!(refusal(spec(3, 2, 3, 4)), "attention at : 3 query heads over 2 key heads");
    let expected = "attention at : qkv is f32[4, 12]: no whole sequences of 3";
    assert_eq!(refusal(spec(2, 1, 3, 3)), expected);
    let expected = "attention at : qkv is f32[4, 12], not a float [4, 16]";
    assert_eq!(refusal(spec(2, 1, 4, 4)), expected);
    assert!(refusal(spec(2, 1, 257, 4)).contains("heads of 257 elements"));
}

/// Sizes, and a row's extent by its place in the sequence: prefixes, parts with a common context,
/// and anything, rows that see nothing and extents beyond the sequence among them.
fn extents(spec: &AttentionSpec, sequences: usize, kind: usize) -> Vec<i32> {
    let length = spec.sequence_length as i32;
    let any = |n: i32| n.wrapping_mul(37).wrapping_add(11).rem_euclid(length + 9) - 3;
    let of = |t: i32, sequence: i32| match kind {
        0 => (t + 1).max((length * (sequence + 1)) / (sequence + 3)),
        1 if t < length / 2 => length / 2,
        1 => t + 1,
        _ => any(t + sequence * length),
    };
    (0..sequences as i32).flat_map(|sequence| (0..length).map(move |t| of(t, sequence))).collect()
}

fn within(spec: AttentionSpec) -> impl Fn(&mut Graph<'_>, &[Tensor]) -> Result<Vec<Tensor>> {
    move |g, x| Ok(vec![attention_within(g, x[0], x[1], x[2], spec)?])
}

#[test]
fn extents_agree_with_pairs_in_f64_both_ways() {
    let sizes = [
        (spec(1, 1, 1, 1), 1),
        (spec(2, 1, 3, 5), 3),
        (spec(2, 1, 2, 70), 1),
        (AttentionSpec { window: Some(30), scale: Some(0.3), ..spec(2, 2, 1, 71) }, 1),
    ];
    for ((spec, sequences), kind) in sizes.into_iter().flat_map(|size| [0, 1, 2].map(|k| (size, k)))
    {
        let spec = AttentionSpec { mask: Mask::Extents, ..spec };
        let (n, own) = (sequences * spec.sequence_length, spec.heads * spec.head_dim);
        let extents = extents(&spec, sequences, kind);
        for segments in [vec![0; n], documents(n)] {
            let mut inputs = packed_inputs(&spec, sequences, segments.clone()).to_vec();
            inputs.push(Array::i32(&[n], extents.clone()));
            let (kv_length, q_segments) = (spec.sequence_length, &segments[..]);
            let (kv_segments, extents) = (q_segments, &extents[..]);
            let case = Case { spec, kv_length, q_segments, kv_segments, extents };
            let f = |x: &[Vec<f64>]| {
                let [q, kv] = case.unpack(&x[0]);
                case.forward(&q, &kv)
            };
            let (x, what) = ([wide(inputs[0].floats())], format!("{spec:?}, kind {kind}"));
            let got = forward(&inputs, &within(spec)).unwrap();
            assert_close(got[0].floats(), &f(&x), 2e-4, 2e-4, &what);
            let dout = noise(2, n * own);
            let seeds = [Array::f32(&[n, own], dout.clone())];
            let got = gradients(&inputs, &seeds, &within(spec)).unwrap();
            let expected = numeric_gradient(&x, 0, &wide(&dout), &f);
            assert_close(got[0].floats(), &expected, 1e-3, 1e-3, &what);
        }
    }
}

#[test]
fn extents_that_look_back_or_everywhere_give_the_bits_of_those_masks() {
    let (spec, sequences) = (spec(4, 2, 8, 150), 2);
    let n = sequences * spec.sequence_length;
    let inputs = packed_inputs(&spec, sequences, documents(n)).to_vec();
    let seeds = [Array::f32(&[n, 32], noise(2, n * 32))];
    let back = (0..n).map(|row| (row % spec.sequence_length) as i32 + 1).collect();
    for (mask, extents) in [(Mask::Causal, back), (Mask::Bidirectional, vec![i32::MAX; n])] {
        let plain = AttentionSpec { mask, ..spec };
        let trace = |g: &mut Graph<'_>, x: &[Tensor]| -> Result<Vec<Tensor>> {
            Ok(vec![attention(g, x[0], x[1], plain)?])
        };
        let given = [inputs.clone(), vec![Array::i32(&[n], extents)]].concat();
        let (a, b) = (forward(&inputs, &trace), forward(&given, &within(spec)));
        assert_eq!(a.unwrap(), b.unwrap(), "{mask:?}");
        let (a, b) = (gradients(&inputs, &seeds, &trace), gradients(&given, &seeds, &within(spec)));
        assert_eq!(a.unwrap()[0], b.unwrap()[0], "{mask:?}");
    }
}

#[test]
fn extents_leave_dead_rows_alone() {
    let (spec, sequences, live) = (spec(2, 1, 3, 70), 3, 99);
    let (n, columns, own) = (210, packed_columns(&spec), 6);
    let mut inputs = packed_inputs(&spec, sequences, documents(n)).to_vec();
    let mut seen = extents(&spec, sequences, 0);
    let (clean, given) = (inputs.clone(), seen.clone());
    let Array::Float(_, data, _) = &mut inputs[0] else { unreachable!("qkv is a float") };
    data[live * columns..].fill(f32::NAN);
    seen[live..].fill(i32::MAX);
    inputs.extend([Array::i32(&[n], seen), Array::i32(&[], vec![live as i32])]);
    let trace = |g: &mut Graph<'_>, x: &[Tensor]| -> Result<Vec<Tensor>> {
        let rows = g.with_live(x[0], x[3]);
        Ok(vec![attention_within(g, rows, x[1], x[2], spec)?])
    };
    let got = forward(&inputs, &trace).unwrap();
    // The first sequence is whole.
    let whole = [clean.clone(), vec![Array::i32(&[n], given)]].concat();
    let alone = forward(&whole, &within(spec)).unwrap();
    assert_eq!(got[0].floats()[..70 * own], alone[0].floats()[..70 * own]);
    assert!(got[0].floats()[..live * own].iter().all(|x| x.is_finite()));
    assert!(got[0].floats()[live * own..].iter().all(|x| x.is_nan()));
    let mut dout = noise(2, n * own);
    dout[live * own..].fill(f32::NAN);
    let got = gradients(&inputs, &[Array::f32(&[n, own], dout)], &trace).unwrap();
    assert!(got[0].floats()[..live * columns].iter().all(|x| x.is_finite()));
    assert!(got[0].floats()[live * columns..].iter().all(|x| x.is_nan()));
}

/// Without outliers, so that sums of weighted values stay below a few units.
fn tame(seed: u64, shape: &[usize]) -> Array {
    let data = noise(seed, shape.iter().product());
    Array::f32(shape, data.into_iter().map(|x| x.clamp(-1.0, 1.0)).collect())
}

/// Holds kernels against the CPU: `x[0]` is `qkv`.
fn hold(spec: &AttentionSpec, rest: Vec<Array>, live: Option<usize>, trace: Trace<'_>) {
    let n = rest[0].ints().len();
    let inputs = [vec![tame(1, &[n, packed_columns(spec)])], rest].concat();
    let seeds = [tame(2, &[n, spec.heads * spec.head_dim])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    Hold { trial, activations: 1, live, near: Near::Rounded(20.0, 20.0) }.run(trace);
}

#[test]
fn a_gpu_agrees_on_masks_windows_documents_and_shared_heads() {
    let local =
        AttentionSpec { mask: Mask::Bidirectional, window: Some(70), ..spec(1, 1, 80, 140) };
    for (spec, sequences, documented) in [
        // Rings go round twice, in bf16 too; heads of a group share keys; documents of some rows.
        (spec(2, 1, 16, 230), 1, true),
        // Wide heads, and padded ones.
        (local, 1, false),
        // Heads that copies cannot align, sequences of less than a tile.
        (AttentionSpec { window: Some(9), scale: Some(0.3), ..spec(4, 2, 5, 33) }, 2, false),
    ] {
        let n = sequences * spec.sequence_length;
        let segments = if documented { documents(n) } else { vec![0; n] };
        let trace = |g: &mut Graph<'_>, x: &[Tensor]| Ok(vec![attention(g, x[0], x[1], spec)?]);
        hold(&spec, vec![Array::i32(&[n], segments)], None, &trace);
    }
}

#[test]
fn a_gpu_agrees_on_extents_and_live_rows() {
    let spec = AttentionSpec { mask: Mask::Extents, ..spec(2, 1, 8, 70) };
    let (n, live) = (210, 99);
    for kind in [0, 2] {
        let rest = vec![Array::i32(&[n], documents(n)), Array::i32(&[n], extents(&spec, 3, kind))];
        hold(&spec, rest, Some(live), &within(spec));
    }
}

#[test]
fn a_gpu_agrees_on_cross_attention() {
    let spec = AttentionSpec { mask: Mask::Bidirectional, ..spec(2, 1, 24, 40) };
    let (sequences, kv_length) = (2, 130);
    let (n, m) = (sequences * 40, sequences * kv_length);
    let inputs = [
        tame(1, &[n, 48]),
        tame(2, &[m, 48]),
        Array::i32(&[n], (0..n as i32).map(|i| i / 30).collect()),
        Array::i32(&[m], (0..m as i32).map(|i| i / 50).collect()),
    ];
    let seeds = [tame(3, &[n, 48])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    Hold { trial, activations: 2, live: None, near: Near::Rounded(20.0, 20.0) }
        .run(&|g, x| Ok(vec![cross_attention(g, x[0], x[1], [x[2], x[3]], kv_length, spec)?]));
}

#[test]
fn heads_wider_than_128_have_no_kernels_yet() {
    let spec = spec(1, 1, 129, 3);
    let inputs = packed_inputs(&spec, 1, vec![0; 3]);
    let policy = Policy { target: Target::H200, ..Policy::default() };
    let trial = Trial { inputs: &inputs, policy, ..Trial::default() };
    let program = trial.program(&|g, x| Ok(vec![attention(g, x[0], x[1], spec)?])).unwrap();
    assert_eq!(program.without_launches().into_iter().collect::<Vec<_>>(), [("attention", 1)]);
}
