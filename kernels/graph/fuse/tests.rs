//! A fused program gives the bits of the one that runs op after op, and fuses what it should.

use crate::cpu::isa::Isa;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Mix, Policy, Recompute, Region, Target, Tensor};
use crate::ops::Op;
use crate::ops::activation::{Activation, gelu, gelu_erf, silu};
use crate::ops::add::add;
use crate::ops::fusible::Fusible;
use crate::ops::layer_norm::layer_norm;
use crate::ops::linear::{Linear, linear};
use crate::ops::rms_norm::rms_norm;
use crate::ops::swiglu::swiglu;
use crate::testing::{Array, Outcome, Trace, Trial, noise};

const ROWS: usize = 70;
const WIDTH: usize = 36;
const INNER: usize = 300;

/// What stands between the two products of a feed-forward.
type Middle = fn(&mut Graph<'_>, Tensor) -> Result<Tensor>;

/// x, a residual, norm weight and bias, up-projection and bias, down-projection, live rows.
fn inputs(up_rows: usize, live: usize, dtype: DType) -> Vec<Array> {
    let shapes: [&[usize]; 7] = [
        &[ROWS, WIDTH],
        &[ROWS, WIDTH],
        &[WIDTH],
        &[WIDTH],
        &[up_rows, WIDTH],
        &[up_rows],
        &[WIDTH, INNER],
    ];
    let mut inputs: Vec<Array> = shapes
        .iter()
        .zip(1..)
        .map(|(shape, seed)| {
            Array::Float(shape.to_vec(), noise(seed, shape.iter().product()), dtype)
        })
        .collect();
    inputs.push(Array::i32(&[], vec![live as i32]));
    inputs
}

/// A pre-norm feed-forward block between two residual sums, and a norm behind it.
fn block(g: &mut Graph<'_>, x: &[Tensor], rms: bool, middle: Middle) -> Result<Vec<Tensor>> {
    let norm = |g: &mut Graph<'_>, s| match rms {
        true => rms_norm(g, s, x[2], 1e-5),
        false => layer_norm(g, s, x[2], x[3], 1e-5),
    };
    let [a, b] = [x[0], x[1]].map(|t| g.with_live(t, x[7]));
    let sum = g.region(Region::Block, |g| {
        let sum = add(g, a, b)?;
        let normed = norm(g, sum)?;
        let mixed = g.region(Region::FeedForward, |g| {
            let z = linear(g, normed, x[4], (!rms).then_some(x[5]))?;
            let y = middle(g, z)?;
            linear(g, y, x[6], None)
        })?;
        add(g, sum, mixed)
    })?;
    Ok(vec![norm(g, sum)?])
}

/// All bits of the gradients and of the outputs' live rows.
fn bits(outcome: &Outcome, live: usize) -> Vec<Vec<u32>> {
    let outputs = outcome.outputs.iter().map(|y| &y.floats()[..live * WIDTH]);
    let all = outputs.chain(outcome.gradients.iter().map(Array::floats));
    all.map(|x| x.iter().map(|x| x.to_bits()).collect()).collect()
}

/// Runs it both ways, compares all bits, and returns the names of what ran fused.
fn compare(trial: Trial<'_>, live: usize, rms: bool, middle: Middle) -> Vec<&'static str> {
    let trace = |g: &mut Graph<'_>, x: &[Tensor]| block(g, x, rms, middle);
    let fused = trial.run(&trace).unwrap();
    let policy = Policy { unfused: true, ..trial.policy };
    let plain = Trial { policy, ..trial }.run(&trace).unwrap();
    assert!(plain.ops.iter().all(|op| !op.contains('+')), "{:?}", plain.ops);
    for (array, (fused, plain)) in bits(&fused, live).iter().zip(bits(&plain, live)).enumerate() {
        let differ = fused.iter().zip(&plain).position(|(a, b)| a != b);
        assert_eq!(differ, None, "array {array}");
    }
    fused.ops.into_iter().filter(|op| op.contains('+')).collect()
}

#[test]
fn both_ways_give_the_same_bits() {
    let cases: [(bool, usize, Middle, [&str; 2]); 5] = [
        (false, INNER, gelu, ["add+layer_norm", "linear+gelu"]),
        (false, INNER, gelu_erf, ["add+layer_norm", "linear+gelu_erf"]),
        (false, INNER, silu, ["add+layer_norm", "linear+silu"]),
        (true, INNER, silu, ["add+rms_norm", "linear+silu"]),
        (true, 2 * INNER, swiglu, ["add+rms_norm", ""]),
    ];
    let seeds = [Array::f32(&[ROWS, WIDTH], noise(8, ROWS * WIDTH))];
    for (rms, up_rows, middle, [sum, product]) in cases {
        for recompute in Recompute::ALL {
            // In bf16 what is between two ops is rounded, in one pass as between two.
            let cases = [(ROWS, 2, DType::F32), (ROWS - 7, 1, DType::F32), (ROWS, 1, DType::Bf16)];
            for (live, threads, dtype) in cases {
                let inputs = inputs(up_rows, live, dtype);
                let policy = Policy { recompute: Mix::from(recompute), ..Policy::default() };
                // Dead rows hold what earlier nodes left there, which is not the same in bf16.
                let trial =
                    Trial { inputs: &inputs, threads, policy, narrow: false, ..Trial::default() };
                for isa in Isa::supported() {
                    let forward = Trial { isa, ..trial };
                    // Nobody reads what the function or the last norm read.
                    let once = [sum, product].into_iter().filter(|name| !name.is_empty());
                    let ops = compare(forward, live, rms, middle);
                    assert_eq!(ops, once.collect::<Vec<_>>());
                    // Backward reads both, unless it makes them again.
                    let ops = compare(Trial { seeds: Some(&seeds), ..forward }, live, rms, middle);
                    assert!(ops.iter().filter(|&&name| name == sum).count() >= 2, "{ops:?}");
                    let again = matches!(recompute, Recompute::FeedForward | Recompute::Block);
                    assert_eq!(ops.contains(&product), again && !product.is_empty(), "{ops:?}");
                }
            }
        }
    }
}

#[test]
fn what_somebody_else_reads_is_kept() {
    let inputs = inputs(INNER, ROWS, DType::F32);
    let trial = Trial { inputs: &inputs, ..Trial::default() };
    let both = |g: &mut Graph<'_>, x: &[Tensor]| {
        let sum = add(g, x[0], x[1])?;
        Ok(vec![layer_norm(g, sum, x[2], x[3], 1e-5)?, sum])
    };
    let fused = trial.run(&both).unwrap();
    assert_eq!(fused.ops, ["add+layer_norm"]);
    let alone = trial.run(&|g, x| Ok(vec![add(g, x[0], x[1])?])).unwrap();
    assert_eq!(fused.outputs[1], alone.outputs[0]);
    // A product that is fetched is not one that only the function reads.
    let both = |g: &mut Graph<'_>, x: &[Tensor]| {
        let z = linear(g, x[0], x[4], Some(x[5]))?;
        Ok(vec![gelu(g, z)?, z])
    };
    assert_eq!(trial.run(&both).unwrap().ops, ["linear", "gelu"]);
}

#[test]
fn only_neighbours_are_fused() {
    // A product that is not the norm's or the function's first input.
    let inputs = inputs(INNER, ROWS, DType::F32);
    let trial = Trial { inputs: &inputs, ..Trial::default() };
    let apart = |g: &mut Graph<'_>, x: &[Tensor]| {
        let z = linear(g, x[0], x[4], None)?;
        let s = add(g, x[0], x[1])?;
        Ok(vec![gelu(g, z)?, layer_norm(g, s, x[2], x[3], 1e-5)?])
    };
    assert_eq!(trial.run(&apart).unwrap().ops, ["linear", "add", "gelu", "layer_norm"]);
}

/// Names of the ops of a program for a target.
fn planned(dtype: DType, target: Target, trace: Trace<'_>) -> Vec<&'static str> {
    let inputs = inputs(INNER, ROWS, dtype);
    let policy = Policy { target, ..Policy::default() };
    let trial = Trial { inputs: &inputs[..7], policy, ..Trial::default() };
    trial.program(trace).unwrap().costs().map(|node| node.op).collect()
}

#[test]
fn a_gpu_fuses_what_it_has_kernels_for() {
    let rms: Trace<'_> = &|g, x| {
        let sum = add(g, x[0], x[1])?;
        Ok(vec![rms_norm(g, sum, x[2], 1e-5)?, sum])
    };
    let layer: Trace<'_> = &|g, x| {
        let sum = add(g, x[0], x[1])?;
        Ok(vec![layer_norm(g, sum, x[2], x[3], 1e-5)?, sum])
    };
    for dtype in [DType::F32, DType::Bf16] {
        assert_eq!(planned(dtype, Target::H200, rms), ["add+rms_norm"]);
        assert_eq!(planned(dtype, Target::Cpu, rms), ["add+rms_norm"]);
        assert_eq!(planned(dtype, Target::H200, layer), ["add+layer_norm"]);
        assert_eq!(planned(dtype, Target::Cpu, layer), ["add+layer_norm"]);
    }
    // A product that backward reads beside its function: one store more on a GPU, two passes here.
    let kept: Trace<'_> = &|g, x| {
        let z = linear(g, x[0], x[4], Some(x[5]))?;
        Ok(vec![gelu(g, z)?, z])
    };
    assert_eq!(planned(DType::Bf16, Target::H200, kept), ["linear+gelu"]);
    assert_eq!(planned(DType::Bf16, Target::Cpu, kept), ["linear", "gelu"]);
}

#[test]
fn a_kept_argument_is_the_one_that_two_ops_store() {
    let inputs = inputs(INNER, ROWS, DType::Bf16);
    for isa in Isa::supported() {
        let trial = Trial { inputs: &inputs[..7], isa, ..Trial::default() };
        let one = trial.run(&|g, x| {
            let op = Linear::default()
                .fused_with(Fusible::Activation(Activation::Gelu), true, Target::H200)
                .unwrap();
            g.apply_shared(op, &[x[0], x[4], x[5]])
        });
        let two = trial.run(&|g, x| {
            let z = linear(g, x[0], x[4], Some(x[5]))?;
            Ok(vec![gelu(g, z)?, z])
        });
        assert_eq!(one.unwrap().outputs, two.unwrap().outputs);
    }
}
