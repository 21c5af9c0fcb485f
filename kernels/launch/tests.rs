//! What a small transformer asks of a GPU, as text; and the mistakes that the static gate refuses.

use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::{A100, H200};
use crate::graph::{Graph, Policy, Target, Tensor};
use crate::launch::{
    Accumulate, Argument, Epilogue, Factor, Grid, Kernel, Launch, Launches, Matmul, Memory,
    TensorMap, pointers,
};
use crate::ops::Io;
use crate::ops::add::add;
use crate::ops::embedding::embedding;
use crate::ops::group_by_expert::group_by_expert;
use crate::ops::linear::linear;
use crate::ops::rms_norm::rms_norm;
use crate::ops::swiglu::swiglu;
use crate::shape::Spec;
use crate::testing::{Array, Trial};

const ROWS: usize = 300;
const WIDTH: usize = 64;

fn bf16(shape: &[usize]) -> Array {
    Array::Float(shape.to_vec(), vec![0.0; shape.iter().product()], DType::Bf16)
}

/// Tokens, table, norm weight, gate and up, down.
fn inputs() -> Vec<Array> {
    let ids = Array::i32(&[ROWS], vec![0; ROWS]);
    vec![ids, bf16(&[100, WIDTH]), bf16(&[WIDTH]), bf16(&[256, WIDTH]), bf16(&[WIDTH, 128])]
}

fn block(g: &mut Graph<'_>, x: &[Tensor]) -> Result<Vec<Tensor>> {
    let h = embedding(g, x[0], x[1])?;
    let normed = rms_norm(g, h, x[2], 1e-5)?;
    let gate_up = linear(g, normed, x[3], None)?;
    let gated = swiglu(g, gate_up)?;
    let down = linear(g, gated, x[4], None)?;
    let sum = add(g, h, down)?;
    Ok(vec![rms_norm(g, sum, x[2], 1e-5)?, sum])
}

/// What it asks of an H200; gradients with respect to all weights.
const EXPECTED: &str = "\
embedding
  embedding:embedding_bf16 <<<5x1x1, 256, 0>>> (in0, in1, out0, live(in0), 300, 64, 100, 64)
rms_norm
  rms_norm:rms_norm_bf16 <<<38x1x1, 256, 0>>> (in0, in1, out0, out1, live(in0), 300, 8, 64, 1e-5)
linear
  out0:bf16 = in0:bf16 · in1ᵀ:bf16, m 300 n 256 k 64
swiglu
  swiglu:swiglu_bf16 <<<10x1x1, 256, 0>>> (in0, out0, live(in0), 300, 32, 128)
linear
  out0:bf16 = in0:bf16 · in1ᵀ:bf16, m 300 n 64 k 128
add+rms_norm
  rms_norm:add_rms_norm_bf16 <<<38x1x1, 256, 0>>> \
(in0, in1, in2, out0, out1, out2, live(in0), 300, 8, 64, 1e-5)
";

#[test]
fn a_forward_pass_is_launches() {
    let policy = Policy { target: Target::H200, ..Policy::default() };
    let inputs = inputs();
    let trial = Trial { inputs: &inputs, policy, ..Trial::default() };
    let program = trial.program(&block).unwrap();
    assert_eq!(program.print_launches(), EXPECTED);
    assert!(program.without_launches().is_empty());
}

#[test]
fn a_backward_pass_names_what_is_missing() {
    let policy = Policy { target: Target::Gpu(&A100), ..Policy::default() };
    let inputs = inputs();
    let seeds = [bf16(&[ROWS, WIDTH]), bf16(&[ROWS, WIDTH])];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), policy, ..Trial::default() };
    let program = trial.program(&block).unwrap();
    assert!(program.without_launches().is_empty());
    let text = program.print_launches();
    // Weight gradients go to f32 and may add; a norm's are sums in fixed blocks of rows.
    let dw = "out0:f32 (+)= in0ᵀ:bf16 · in1:bf16, m 256 n 64 k 300\n";
    assert!(text.contains(dw), "{text}");
    let sums = "rms_norm_weight_terms_bf16 <<<5x1x1, 256, 0>>> (in0, in1, in2, scratch[0+1280], ";
    assert!(text.contains(sums), "{text}");
    // More experts than a block counts.
    let grouped = |g: &mut Graph<'_>, x: &[Tensor]| {
        let expert = g.reshape(x[0], &[ROWS, 1])?;
        Ok(vec![group_by_expert(g, expert, 2000, ROWS)?.row_of])
    };
    let forward = Trial { seeds: None, ..trial };
    let program = forward.program(&grouped).unwrap();
    let missing: Vec<_> = program.without_launches().into_iter().collect();
    assert_eq!(missing, [("group_by_expert", 1)]);
    assert_eq!(program.print_launches(), "group_by_expert\n  nothing yet\n");
    // On a CPU nothing is asked and nothing is missing.
    let cpu = Trial { policy: Policy::default(), ..forward };
    assert!(cpu.program(&grouped).unwrap().without_launches().is_empty());
}

#[test]
fn a_live_contraction_is_no_library_call() {
    let mut inputs = inputs();
    inputs.push(Array::i32(&[], vec![7]));
    let seeds = [bf16(&[ROWS, 256])];
    let policy = Policy { target: Target::H200, ..Policy::default() };
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), policy, ..Trial::default() };
    let program = trial.program(&|g, x| {
        let tokens = g.with_live(x[0], x[5]);
        let h = embedding(g, tokens, x[1])?;
        Ok(vec![linear(g, h, x[3], None)?])
    });
    let text = program.unwrap().print_launches();
    let dw = "m 256 n 64 k ≤300 live(in0), own kernel\n";
    let y = "m ≤300 live(in0) n 256 k 64, own kernel\n";
    assert!(text.contains(dw) && text.contains(y), "{text}");
}

/// One live bf16 input of 4 rows of 64, one output like it, one fully live f32.
fn io() -> Io {
    let x = Spec::new(&[4, 64], DType::Bf16);
    let variables = crate::graph::Variables::new();
    let live = Graph::new(&variables).input("live", &[], DType::I32);
    let inputs = vec![x.clone().with_live(Some(live)), Spec::new(&[64, 64], DType::F8E4M3)];
    Io { inputs, outputs: vec![x] }
}

fn kernel(change: impl Fn(&mut Kernel)) -> Launches {
    let rows = Memory::Input(0);
    let mut kernel = Kernel::over_rows("x", "f".to_string(), rows, 1);
    kernel.arguments.extend(pointers(1, 1).chain([Argument::Live(rows)]));
    change(&mut kernel);
    Launches::new([Launch::Kernel(kernel)])
}

fn map() -> TensorMap {
    TensorMap {
        memory: Memory::Input(0),
        dtype: DType::Bf16,
        offset_bytes: 0,
        size: [64, 4],
        stride_bytes: 128,
        tile: [64, 4],
    }
}

#[test]
fn the_gate_lets_right_launches_through_and_names_wrong_ones() {
    let refused = |launches: Launches, what: &str| {
        let error = launches.check("op", &io(), &H200).unwrap_err().to_string();
        assert!(error.contains(what), "{error}, not {what}");
    };
    kernel(|_| ()).check("op", &io(), &H200).unwrap();
    refused(kernel(|k| k.block = 48), "blocks of 48 threads");
    refused(kernel(|k| k.block = 2048), "blocks of 2048 threads");
    refused(kernel(|k| k.shared_bytes = 228 << 10), "shared bytes");
    refused(kernel(|k| k.grid = Grid::Fixed([0, 1, 1])), "no blocks");
    refused(kernel(|k| k.table = vec![0; 500]), "a table of 500 words");
    refused(kernel(|k| k.arguments.truncate(2)), "not told how many rows");
    refused(kernel(|k| k.arguments.push(Argument::Pointer(Memory::Input(2)))), "no Input(2)");
    let scratch = Memory::Workspace { offset: 0, bytes: 1 };
    let out = Argument::Pointer(Memory::Output(0));
    refused(kernel(|k| k.arguments.push(Argument::Pointer(scratch))), "no Workspace");
    refused(kernel(|k| k.arguments.retain(|a| *a != out)), "nothing writes output 0");
    let with = |map| kernel(move |k| k.arguments.push(Argument::TensorMap(map)));
    with(map()).check("op", &io(), &H200).unwrap();
    assert!(with(map()).check("op", &io(), &A100).is_err(), "no such copies before Hopper");
    refused(with(TensorMap { size: [64, 5], ..map() }), "tensor map");
    refused(with(TensorMap { stride_bytes: 120, size: [60, 4], ..map() }), "tensor map");
    refused(with(TensorMap { tile: [128, 4], ..map() }), "tensor map");
    let (from, to) = (Memory::Input(1), Memory::Output(0));
    refused(Launches::new([Launch::Copy { from, to }]), "not as long");
    refused(Launches::new([Launch::Zero(Memory::Output(1))]), "no Output(1)");
    Launches::new([Launch::Zero(to)]).check("op", &io(), &H200).unwrap();
}

#[test]
fn products_are_held_against_their_operands() {
    let factor = |i: usize, dtype| Factor {
        memory: Memory::Input(i),
        dtype,
        transposed: false,
        scale: None,
    };
    let product = Matmul {
        m: 4.into(),
        n: 64,
        k: 64.into(),
        a: factor(0, DType::Bf16),
        b: factor(1, DType::F8E4M3),
        c: Memory::Output(0),
        c_dtype: DType::Bf16,
        accumulate: Accumulate::Never,
        epilogue: Epilogue::None,
    };
    let check =
        |product: Matmul| Launches::new([Launch::Matmul(product)]).check("op", &io(), &H200);
    let without = check(product.clone()).unwrap_err().to_string();
    assert!(without.contains("scales belong to 8-bit floats"), "{without}");
    let scaled = Factor { scale: Some(Memory::Input(0)), ..product.b };
    let product = Matmul { b: scaled, ..product };
    check(product.clone()).unwrap();
    assert!(check(Matmul { n: 63, ..product.clone() }).is_err());
    assert!(check(Matmul { c_dtype: DType::F32, ..product.clone() }).is_err());
    // The table of choices knows sizes and kinds, not places.
    assert_eq!(product.key().to_string(), "4x64x64 bf16·f8_e4m3->bf16 plain");
    let moved = Matmul { a: factor(1, DType::Bf16), ..product.clone() };
    assert_eq!(moved.key(), product.key());
}
