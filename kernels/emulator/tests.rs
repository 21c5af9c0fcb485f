//! The emulator bites: mistakes planted in the kernels that are used are found, each by its name.

use std::fs;
use std::path::Path;

use crate::cuda::device::CudaDevice;
use crate::cuda::nvrtc::TARGETS;
use crate::cuda::step::tests::BY_MODULE;
use crate::cuda::testing::Pretended;
use crate::device::Products;
use crate::dtype::DType;
use crate::emulator::compile::Edit;
use crate::emulator::hold::{Hold, Near, schedules};
use crate::emulator::{Schedule, available, card};
use crate::error::Result;
use crate::graph::{Graph, Target, Tensor};
use crate::ops::attention::{AttentionSpec, Mask, attention};
use crate::ops::combine::combine;
use crate::ops::dispatch::dispatch;
use crate::ops::embedding::embedding;
use crate::ops::group_by_expert::group_by_expert;
use crate::ops::grouped_linear::grouped_linear;
use crate::ops::linear::linear;
use crate::ops::rms_norm::rms_norm;
use crate::ops::route::{Route, Score, route};
use crate::ops::swiglu::swiglu;
use crate::testing::{Array, Outcome, Trial, noise};

/// Which kernels a mistake is planted in.
#[derive(Debug, Clone, Copy, PartialEq)]
enum In {
    /// Products with a ring that goes round more than twice; tiles with edges.
    Linear,
    /// Sums over rows by warps.
    RmsNorm,
    /// Rows that several blocks share.
    SwiGlu,
    /// Only some rows live.
    LiveSwiGlu,
    /// A table and its gradient, which barriers hold together.
    Embedding,
    /// Rings of keys and of queries, tiles that are skipped, documents and a window.
    Attention,
    /// Tokens with their experts: choices, a counting sort, copies and sums by its numbers.
    Route,
    Grouping,
    Combine,
    /// Products over several tiles of rows of each expert.
    GroupedLinear,
}

impl In {
    fn module(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::RmsNorm => "rms_norm",
            Self::SwiGlu | Self::LiveSwiGlu => "swiglu",
            Self::Embedding => "embedding",
            Self::Attention => "attention",
            Self::Route => "route",
            Self::Grouping => "group_by_expert",
            Self::Combine => "combine",
            Self::GroupedLinear => "grouped_linear",
        }
    }
}

struct Planted {
    at: In,
    from: &'static str,
    to: &'static str,
    says: &'static str,
}

const fn planted(at: In, from: &'static str, to: &'static str, says: &'static str) -> Planted {
    Planted { at, from, to, says }
}

const WAITED: &str = "        wait_for_copies<STAGES - 2>();\n";
const BARRIER: &str = "nobody reads the one that is filled next.\n        __syncthreads();\n";
const FILLED: &str = "        if (tile + STAGES - 1 < tiles) fill(tile + STAGES - 1);\n";
const STAGED: &str = "to store whole rows of them.\n    __syncthreads();\n";
const TILE_THERE: &str = "is filled next.\n        __syncthreads();\n";
const LEFT: &str = "    }\n    __syncwarp();\n}\n\n__device__ __forceinline__ f32 quad_max";
const FOUND: &str = "        __syncthreads();\n    }\n}\n";

/// The mistakes, by kind.
const MISTAKES: [Planted; 46] = [
    // A ring.
    planted(
        In::Linear,
        WAITED,
        "        wait_for_copies<STAGES - 1>();\n",
        "while a copy to it is under way",
    ),
    planted(In::Linear, WAITED, "", "while a copy to it is under way"),
    planted(In::Linear, BARRIER, "filled next.\n", "read of shared memory at byte"),
    planted(
        In::Linear,
        concat!(
            "filled next.\n        __syncthreads();\n",
            "        if (tile + STAGES - 1 < tiles) fill(tile + STAGES - 1);\n"
        ),
        concat!(
            "filled next.\n",
            "        if (tile + STAGES - 1 < tiles) fill(tile + STAGES - 1);\n",
            "        __syncthreads();\n"
        ),
        "race: write of shared memory",
    ),
    planted(
        In::Linear,
        FILLED,
        "        fill(tile + STAGES - 1);\n",
        "while a copy to it is under way",
    ),
    planted(In::Linear, STAGED, "rows of them.\n", "race: write of shared memory"),
    planted(In::Linear, "    __syncwarp();\n", "", "read of shared memory at byte"),
    planted(In::Linear, "STAGES = 3;", "STAGES = 4;", "out of bounds: byte"),
    planted(In::Linear, "COLUMNS + 8];", "COLUMNS + 4];", "no multiples of 16"),
    // Edges.
    planted(
        In::Linear,
        "inside = row + r < rows",
        "inside = row + r <= rows",
        "out of bounds: read",
    ),
    planted(
        In::Linear,
        "if (row + wm + r >= p.m ||",
        "if (row + wm + r > p.m ||",
        "out of bounds: write",
    ),
    planted(
        In::RmsNorm,
        concat!(
            "u64 row = rows.begin + threadIdx.x / 32; row < rows.end; ",
            "row += blockDim.x / 32) {\n        normalise"
        ),
        concat!(
            "u64 row = rows.begin + threadIdx.x / 32; row <= rows.end; ",
            "row += blockDim.x / 32) {\n        normalise"
        ),
        "out of bounds: read",
    ),
    planted(
        In::SwiGlu,
        "each < rows ? begin + each : rows",
        "each - 1 < rows ? begin + each - 1 : rows",
        "wrong result",
    ),
    planted(In::LiveSwiGlu, "i32 rows = *live;", "i32 rows = *live + 1;", "out of bounds: read"),
    planted(
        In::SwiGlu,
        "begin = blockIdx.x * each;",
        "begin = blockIdx.x * (each / 2);",
        "race: write of out0",
    ),
    planted(
        In::SwiGlu,
        "u32 capacity, u32 each, u32 half) { \\",
        "u32 capacity, u64 each, u32 half) { \\",
        "takes pppwlw",
    ),
    // Warps.
    planted(
        In::RmsNorm,
        "x += __shfl_xor_sync(~0u,",
        "x += __shfl_xor_sync(0xffffu,",
        "which is not in mask 0000ffff",
    ),
    planted(
        In::RmsNorm,
        "    f32 squares[1];\n",
        "    f32 squares[1];\n    if (threadIdx.x % 32 == 31) return;\n",
        "which has ended",
    ),
    // Memory that nobody has written, or may not write.
    planted(
        In::RmsNorm,
        "{view(x, 0), view(w, 0)}, {view(y, 0)}, false",
        "{view(x, 0), view(w, 0)}, {view(y, 0)}, true",
        "read of out0 at byte 0, which nobody has written",
    ),
    planted(
        In::Embedding,
        "threadIdx.x; !adds && i <",
        "threadIdx.x; false && i <",
        "which nobody has written",
    ),
    planted(
        In::Embedding,
        "found[threadIdx.x] = token;",
        "const_cast<i32*>(tokens)[row] = 0;",
        "write of in0, which is an input",
    ),
    // Barriers.
    planted(In::Embedding, FOUND, "    }\n}\n", "race: read of shared memory"),
    planted(
        In::Embedding,
        FOUND,
        "        if (threadIdx.x < 128) __syncthreads();\n    }\n}\n",
        "race: write of shared memory",
    ),
    planted(
        In::Linear,
        STAGED,
        "rows of them.\n    if (threadIdx.x < 64) __syncthreads();\n    else __syncthreads();\n",
        "barrier in divergent code",
    ),
    planted(
        In::Embedding,
        "if (__syncthreads_or(token < own))",
        "if (true)",
        "of shared memory at byte",
    ),
    // Tiles that meet.
    planted(In::Attention, TILE_THERE, "is filled next.\n", "of shared memory at byte"),
    planted(
        In::Attention,
        "stages[(number + STAGES - 1) % STAGES];",
        "stages[(number + STAGES) % STAGES];",
        "of shared memory at byte",
    ),
    planted(In::Attention, "walk.keep(free, known);", "", "of shared memory at byte"),
    planted(
        In::Attention,
        "meet(stages[number % STAGES], coming[0]);",
        "meet(stages[number % STAGES], coming[STAGES - 1]);",
        "wrong result",
    ),
    planted(In::Attention, LEFT, "    }\n}\n\n__device__ __forceinline__ f32 quad_max", "race: "),
    planted(
        In::Attention,
        "key = tile * KEYS + column;",
        "key = (tile + 1) * KEYS + column;",
        "wrong result",
    ),
    planted(In::Attention, "key + size <= seen;", "key <= seen;", "wrong result"),
    planted(In::Attention, "return a.high < b.low ||", "return a.high <= b.low ||", "wrong result"),
    // Tokens and their experts.
    planted(In::Route, "if (e % 32 == warp_team().rank) keys[e] = 0;", "", "race: "),
    planted(In::Route, "taken[e] = 0;\n    __syncthreads();", "taken[e] = 0;", "of shared memory"),
    planted(
        In::Route,
        "    __syncthreads();\n    for (u32 e = threadIdx.x; e < c.experts; e += blockDim.x) {\n",
        "    for (u32 e = threadIdx.x; e < c.experts; e += blockDim.x) {\n",
        "race: ",
    ),
    planted(
        In::Grouping,
        "        // All have read where the next row is.\n        __syncwarp();\n",
        "",
        "race: ",
    ),
    planted(In::Grouping, "__popc(same);\n        __syncwarp();\n", "__popc(same);\n", "race: "),
    planted(In::Grouping, "bit < limit;", "bit * 2 < limit;", "race: "),
    planted(
        In::Grouping,
        "other < part && part < parts;",
        "other + 1 < part && part < parts;",
        "race: ",
    ),
    planted(In::Combine, "if (row < 0) continue;", "", "out of bounds"),
    planted(In::GroupedLinear, "number < before + sum", "number <= before + sum", "wrong result"),
    planted(In::GroupedLinear, "sum - tiles, found", "sum, found", "race: "),
    planted(In::GroupedLinear, "skipped) * each,", "skipped) * (each / 2),", "race: "),
    planted(
        In::GroupedLinear,
        "nullptr, group.rows.end,",
        "nullptr, group.rows.end + 1,",
        "race: ",
    ),
    planted(In::GroupedLinear, "(u64)group.expert * n", "(u64)experts * n", "out of bounds"),
];

/// Two tiles of keys more than the ring has.
const ATTENTION: AttentionSpec = AttentionSpec {
    heads: 2,
    kv_heads: 1,
    head_dim: 16,
    sequence_length: 300,
    mask: Mask::Causal,
    window: Some(290),
    scale: None,
};

fn inputs(at: In) -> Vec<Array> {
    let float = |seed, shape: [usize; 2]| Array::f32(&shape, noise(seed, shape[0] * shape[1]));
    match at {
        In::Linear => vec![float(1, [70, 200]), float(2, [72, 200])],
        In::RmsNorm => vec![float(1, [9, 70]), Array::f32(&[70], noise(2, 70))],
        In::SwiGlu | In::LiveSwiGlu => vec![float(1, [300, 80])],
        In::Route | In::Grouping | In::Combine => {
            vec![float(1, [500, 40]), float(2, [40, 40])]
        }
        In::GroupedLinear => {
            let experts = Array::f32(&[8, 40, 40], noise(4, 8 * 40 * 40));
            vec![float(1, [500, 40]), float(2, [8, 40]), experts]
        }
        In::Embedding => {
            let tokens = (0..300).map(|i| i * i % 70).collect();
            vec![Array::i32(&[300], tokens), float(2, [70, 9])]
        }
        In::Attention => {
            let segments = (0..300).map(|i| i32::from(i >= 280)).collect();
            vec![float(1, [300, 64]), Array::i32(&[300], segments)]
        }
    }
}

fn seeds(at: In) -> Vec<Array> {
    let shape: &[usize] = match at {
        In::Linear => &[70, 72],
        In::RmsNorm => &[9, 70],
        In::SwiGlu | In::LiveSwiGlu => &[300, 40],
        In::Embedding => &[300, 9],
        In::Attention => &[300, 32],
        In::Route | In::Grouping | In::Combine | In::GroupedLinear => &[500, 40],
    };
    vec![Array::f32(shape, noise(3, shape[0] * shape[1]))]
}

fn trace(at: In, g: &mut Graph<'_>, x: &[Tensor]) -> Result<Vec<Tensor>> {
    Ok(vec![match at {
        In::Linear => linear(g, x[0], x[1], None)?,
        In::RmsNorm => rms_norm(g, x[0], x[1], 1e-5)?,
        In::SwiGlu | In::LiveSwiGlu => swiglu(g, x[0])?,
        In::Embedding => embedding(g, x[0], x[1])?,
        In::Attention => attention(g, x[0], x[1], ATTENTION)?,
        In::Route | In::Grouping | In::Combine => mixture(g, x[0], x[1], None)?,
        In::GroupedLinear => mixture(g, x[0], x[1], Some(x[2]))?,
    }])
}

/// Three experts for each token, some of which find no row.
fn mixture(
    g: &mut Graph<'_>,
    x: Tensor,
    router: Tensor,
    experts: Option<Tensor>,
) -> Result<Tensor> {
    let logits = linear(g, x, router, None)?;
    let rule = Route { top_k: 3, score: Score::Softmax, normalize: true };
    let (expert, weight, _) = route(g, logits, None, rule)?;
    let count = g.spec(router).leading();
    let grouping = group_by_expert(g, expert, count, 1400)?;
    let mut rows = dispatch(g, x, &grouping)?;
    if let Some(experts) = experts {
        rows = grouped_linear(g, rows, experts, &grouping)?;
    }
    combine(g, rows, weight, &grouping)
}

/// What is said of kernels with this change, under any order.
fn verdict(at: In, edit: Option<Edit>) -> String {
    let (inputs, seeds) = (inputs(at), seeds(at));
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let activations = usize::from(at != In::Embedding);
    let live = (at == In::LiveSwiGlu).then_some(150);
    let hold = Hold { trial, activations, live, near: Near::Bits };
    let run =
        |target, schedule| hold.once(DType::Bf16, false, &|g, x| trace(at, g, x), target, schedule);
    let words = |got: &Outcome| -> Vec<Vec<u32>> { got.outputs.iter().map(Array::words).collect() };
    let right = run(Target::H100, Schedule::default()).expect("the kernels as they are");
    for schedule in schedules(true) {
        match run(Target::H100, Schedule { edit, ..schedule }) {
            Err(error) => return error.to_string(),
            Ok(got) if words(&got) != words(&right) => return "wrong result".to_string(),
            Ok(_) => {}
        }
    }
    "nothing".to_string()
}

#[test]
fn planted_mistakes_are_found_by_name() {
    if !available() {
        return;
    }
    let mut missed = Vec::new();
    for Planted { at, from, to, says } in MISTAKES {
        let verdict = verdict(at, Some(Edit { module: at.module(), from, to }));
        if !verdict.contains(says) {
            missed.push(format!("{at:?}: {to:?} in place of {from:?}: {verdict}, not {says}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn nothing_is_found_in_what_is_right() {
    if !available() {
        return;
    }
    let all = [In::Linear, In::RmsNorm, In::SwiGlu, In::LiveSwiGlu, In::Embedding, In::Attention];
    for at in all.into_iter().chain([In::GroupedLinear]) {
        assert_eq!(verdict(at, None), "nothing", "{at:?}");
    }
}

#[test]
fn a_gpu_in_the_emulators_place_has_the_hosts_memory_before_and_after() {
    let Some(machine) = Pretended::new("emulator::card", "seed=2") else { return };
    let device: &_ =
        Box::leak(Box::new(CudaDevice::alone(machine.search(), Products::Own).unwrap()));
    let inputs = [Array::f32(&[5, 8], noise(1, 40)), Array::f32(&[8], noise(2, 8))];
    let seeds = [Array::f32(&[5, 8], noise(3, 40))];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), later: true, ..Trial::default() };
    let trace = |g: &mut Graph<'_>, x: &[Tensor]| Ok(vec![rms_norm(g, x[0], x[1], 1e-5)?]);
    // SAFETY: the regions are the trial's, which nobody else uses.
    let on_a_gpu = trial.with(&trace, |program, bindings, context| unsafe {
        card::run(device, program, bindings, context, 0..program.nodes()).map(|()| 0)
    });
    assert_eq!(on_a_gpu.unwrap(), trial.once(&trace).unwrap());
}

/// README's rows: every module with kernels, how its tests hold it against the CPU, and for what
/// the static gate compiles it.
fn proven() -> String {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = fs::read_dir(package.join("ops")).expect("the ops").flatten();
    let seen = fs::read_to_string(package.join("../docs/gpu/kernels.tsv")).unwrap_or_default();
    let mut rows = Vec::new();
    for folder in folders.map(|entry| entry.path()) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !folder.join(format!("{name}.cu")).exists() {
            continue;
        }
        let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
        let tests = read("tests.rs") + &read("gpu_tests.rs");
        let near = ["Bits", "Sums", "Rounded"].map(|n| tests.contains(&format!("Near::{n}")));
        let of_a_step = BY_MODULE.into_iter().find(|(module, _)| *module == name);
        let held = match (of_a_step, near) {
            (Some((_, held)), _) => held,
            (_, [true, false, false]) => "the CPU's bits",
            (_, [false, true, false]) => "within 4 eps of its sums",
            (_, [true, true, false]) => "bits, and sums within 4 eps",
            (_, [_, _, true]) => "within 4 eps of its sums, or a rounding of a factor",
            (_, [false, false, false]) => "no",
        };
        let compiled = TARGETS.join(", ");
        let mut seen = seen.lines().filter_map(|line| line.split_once('\t'));
        let on_a_card = seen.find(|(module, _)| *module == name);
        let on_a_card = on_a_card.map_or("not yet", |(_, when)| when);
        rows.push(format!("| `{name}` | {held} | {compiled} | {on_a_card} |\n"));
    }
    rows.sort();
    rows.concat()
}

#[test]
fn the_readme_says_what_is_proven_where() {
    let proven = proven();
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).expect("README.md");
    assert!(!proven.contains("| no |"), "kernels that are not emulated:\n{proven}");
    assert!(readme.contains(&proven), "README.md should have these rows, and no others:\n{proven}");
    let first = readme.lines().skip_while(|line| !line.ends_with("| Run on a card |")).skip(2);
    let rows = first.take_while(|line| line.starts_with('|')).count();
    assert_eq!(rows, proven.lines().count(), "README.md has rows of kernels that are not there");
}
