//! Ops together: a transformer block gives the same bits for every number of threads and every
//! instruction set, forward and backward; every linear layer has its products in bf16 if asked.

use crate::cpu::isa::Isa;
use crate::dtype::Precision;
use crate::error::Result;
use crate::graph::{Graph, Policy, Tensor};
use crate::ops::activation::{gelu, gelu_erf, silu};
use crate::ops::add::add;
use crate::ops::attention::{AttentionSpec, Mask, attention};
use crate::ops::dropout::dropout;
use crate::ops::embedding::embedding;
use crate::ops::grouped_linear::GroupedLinear;
use crate::ops::head_norm::{HeadNorm, head_norm};
use crate::ops::layer_norm::layer_norm;
use crate::ops::linear::linear;
use crate::ops::linear_cross_entropy::{LossOptions, linear_cross_entropy};
use crate::ops::multiply::multiply;
use crate::ops::rms_norm::rms_norm;
use crate::ops::rope::{RopeScaling, RopeSpec, RopeTable, rope};
use crate::ops::scale::scale;
use crate::ops::swiglu::swiglu;
use crate::testing::{Array, Outcome, Trial, noise};

const N: usize = 150;
const T: usize = 75;
const D: usize = 36;
const V: usize = 50;

fn inputs() -> Vec<Array> {
    let weight = |seed: u64, shape: &[usize]| {
        let data = noise(seed, shape.iter().product());
        Array::f32(shape, data.iter().map(|x| x * 0.2).collect())
    };
    let ids = |step: usize, below: usize| {
        Array::i32(&[N], (0..N).map(|i| (i * step % below) as i32).collect())
    };
    vec![
        weight(1, &[V, D]),
        weight(2, &[72, D]),
        weight(3, &[9]),
        weight(4, &[9]),
        weight(5, &[D, D]),
        weight(6, &[D]),
        weight(7, &[D]),
        weight(8, &[2 * D, D]),
        weight(9, &[V]),
        ids(7, V),
        ids(1, T),
        Array::i32(&[N], (0..N).map(|i| (i / 20) as i32).collect()),
        ids(11, V),
        Array::f32(&[], vec![0.1]),
    ]
}

fn block(g: &mut Graph<'_>, x: &[Tensor]) -> Result<Vec<Tensor>> {
    let table = RopeTable::new(RopeSpec {
        head_dim: 8, // even, unlike the heads of this attention: any columns will do
        theta: 1e4,
        scaling: RopeScaling::None,
        max_positions: T,
    });
    let spec = AttentionSpec {
        heads: 4,
        kv_heads: 2,
        head_dim: 9,
        sequence_length: T,
        mask: Mask::Causal,
        window: Some(70),
        scale: None,
    };
    let h = embedding(g, x[9], x[0])?;
    let normed = rms_norm(g, h, x[6], 1e-5)?;
    let qkv = linear(g, normed, x[1], None)?;
    let qkv = head_norm(g, qkv, x[2], x[3], HeadNorm { heads: 4, kv_heads: 2, eps: 1e-6 })?;
    let qkv = rope(g, qkv, x[10], &table, 6)?;
    let out = attention(g, qkv, x[11], spec)?;
    let out = linear(g, out, x[4], Some(x[5]))?;
    let out = dropout(g, out, 0.2, T)?;
    let h = add(g, h, out)?;
    let normed = layer_norm(g, h, x[6], x[5], 1e-5)?;
    let gated = linear(g, normed, x[7], None)?;
    let gated = swiglu(g, gated)?;
    let (a, b, c) = (gelu(g, gated)?, gelu_erf(g, gated)?, silu(g, gated)?);
    let product = multiply(g, a, b)?;
    let sum = add(g, product, c)?;
    let sum = scale(g, sum, 0.7)?;
    let h = add(g, h, sum)?;
    let options = LossOptions {
        chunk_rows: 64,
        gpu_chunks: 1,
        z_loss: 1e-3,
        label_smoothing: 0.1,
        softcap: Some(30.0),
    };
    let loss = linear_cross_entropy(g, h, x[0], Some(x[8]), x[12], x[13], options)?;
    Ok(vec![loss.loss, loss.loss_sum, h])
}

fn bits(outcome: &Outcome) -> Vec<u32> {
    let floats = outcome.outputs.iter().chain(&outcome.gradients).flat_map(Array::floats);
    floats.map(|x| x.to_bits()).collect()
}

#[test]
fn a_block_has_the_same_bits_on_every_machine() {
    let inputs = inputs();
    let seeds = [Array::f32(&[], vec![1.0])];
    let run = |threads, isa| {
        let trial =
            Trial { inputs: &inputs, seeds: Some(&seeds), threads, isa, ..Trial::default() };
        trial.run(&block).unwrap()
    };
    let base = run(1, Isa::detect());
    // The scale of the loss, the last input, has no gradient; everything else is a number.
    assert!(base.outputs.iter().all(|x| x.floats().iter().all(|x| x.is_finite())));
    let (scale, weights) = base.gradients.split_last().unwrap();
    assert!(weights.iter().all(|x| x.floats().iter().all(|x| x.is_finite())));
    assert!(scale.floats()[0].is_nan());
    for isa in Isa::supported() {
        for threads in [1, 2, 5] {
            assert_eq!(bits(&base), bits(&run(threads, isa)), "{isa}, {threads} threads");
        }
    }
}

#[test]
fn products_in_bf16_are_those_of_rounded_operands() {
    let [rows, inner, out] = [30, 33, 40];
    let start = Array::i32(&[3], vec![0, 13, 30]);
    let labels = Array::i32(&[rows], (0..rows).map(|i| (i * 7 % out) as i32).collect());
    let operands = [[rows, inner], [out, inner]].map(|s| Array::f32(&s, noise(7, s[0] * s[1])));
    let [x, w] = operands;
    let experts = Array::f32(&[2, out, inner], noise(9, 2 * out * inner));
    let inputs = [x, w, experts, Array::f32(&[], vec![0.5]), start, labels];
    let trace = |g: &mut Graph<'_>, x: &[Tensor]| {
        let y = linear(g, x[0], x[1], None)?;
        let grouped = g.apply_one(GroupedLinear, &[x[0], x[2], x[4]])?;
        let loss = linear_cross_entropy(g, x[0], x[1], None, x[5], x[3], LossOptions::default())?;
        Ok(vec![y, grouped, loss.loss])
    };
    let seeds = [10, 11].map(|seed| Array::f32(&[rows, out], noise(seed, rows * out)));
    let round = |array: &Array| match array {
        Array::Float(shape, data, dtype) => {
            let nearest = |&x: &f32| half::bf16::from_f32(x).to_f32();
            Array::Float(shape.clone(), data.iter().map(nearest).collect(), *dtype)
        }
        Array::Int(..) => array.clone(),
    };
    let [rounded, rounded_seeds] =
        [&inputs[..], &seeds].map(|arrays| arrays.iter().map(round).collect::<Vec<_>>());
    let policy = Policy { matmul: Precision::Bf16, ..Policy::default() };
    for isa in Isa::supported() {
        let run = |inputs: &[Array], seeds: &[Array], policy| {
            let trial = Trial { inputs, seeds: Some(seeds), isa, policy, ..Trial::default() };
            let Outcome { outputs, mut gradients, .. } = trial.run(&trace).unwrap();
            // The loss scale has none.
            gradients.truncate(3);
            (outputs, gradients)
        };
        let narrow = run(&inputs, &seeds, policy);
        let wide = run(&rounded, &rounded_seeds, Policy::default());
        assert_eq!(narrow, wide, "{isa}");
        assert_ne!(narrow, run(&inputs, &seeds, Policy::default()), "{isa}");
    }
}

#[test]
fn a_part_of_a_graph_has_its_own_precision() {
    let [rows, inner, out] = [30, 33, 40];
    let weight = |seed| Array::f32(&[out, inner], noise(seed, out * inner));
    let inputs = [Array::f32(&[rows, inner], noise(1, rows * inner)), weight(2), weight(3)];
    let seeds = [4, 5].map(|seed| Array::f32(&[rows, out], noise(seed, rows * out)));
    let run = |part: Option<Precision>, matmul: Precision| {
        let policy = Policy { matmul, ..Policy::default() };
        let trial = Trial { inputs: &inputs, seeds: Some(&seeds), policy, ..Trial::default() };
        let trace = |g: &mut Graph<'_>, x: &[Tensor]| {
            let first = match part {
                Some(part) => g.with_precision(part, |g| linear(g, x[0], x[1], None))?,
                None => linear(g, x[0], x[1], None)?,
            };
            Ok(vec![first, linear(g, x[0], x[2], None)?])
        };
        let Outcome { outputs, gradients, .. } = trial.run(&trace).unwrap();
        // What the first product alone makes, and the second.
        [0, 1].map(|i| (outputs[i].clone(), gradients[1 + i].clone()))
    };
    let (wide, narrow) = (run(None, Precision::F32), run(None, Precision::Bf16));
    assert_ne!(wide[0], narrow[0]);
    let [first, second] = run(Some(Precision::Bf16), Precision::F32);
    assert_eq!((&first, &second), (&narrow[0], &wide[1]));
    let [first, second] = run(Some(Precision::F32), Precision::Bf16);
    assert_eq!((&first, &second), (&wide[0], &narrow[1]));
}
