//! What a configuration will take, before anything is taken: parameters, memory, FLOPs, time.
//!
//! The arena is the very plan that a run allocates. Times are rooflines: the larger of FLOPs over
//! peak and bytes over bandwidth, summed over ops.

use std::collections::BTreeMap;
use std::time::Instant;

use octet_actors::contract::Workload;
use octet_actors::loader::SlotShape;
use octet_actors::rank_memory::{RankMemory, Zero};
use octet_actors::snapshot::{SLOTS, SnapshotLayout};
use octet_kernels::cpu::CpuDevice;
use octet_kernels::cpu::gemm::{Matrix, Output, Size};
use octet_kernels::graph::Cost;
use serde::Serialize;

use crate::config::Config;
use crate::experiment::Experiment;
use crate::failure::Failure;

#[cfg(test)]
mod tests;

/// What a process takes besides arena and host buffers on a CPU: code, stacks, tokenizer, logs.
pub const OUTSIDE_CPU_BYTES: usize = 96 << 20;

/// Peaks of a device.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Peaks {
    /// FLOP/s of matrix products.
    pub flops_per_s: f64,
    /// Bytes/s of memory.
    pub bytes_per_s: f64,
    /// Memory; `None` if it is not a limit that we know.
    pub memory_bytes: Option<usize>,
}

impl Peaks {
    /// NVIDIA H200 SXM, dense bf16, from its data sheet.
    pub const H200: Self =
        Self { flops_per_s: 989.4e12, bytes_per_s: 4.8e12, memory_bytes: Some(141_000_000_000) };
    /// NVIDIA H100 SXM, dense bf16, from its data sheet.
    pub const H100: Self =
        Self { flops_per_s: 989.4e12, bytes_per_s: 3.35e12, memory_bytes: Some(80_000_000_000) };

    /// This machine, measured in a few milliseconds.
    pub fn measure_cpu(threads: usize) -> Self {
        const SIDE: usize = 256;
        const BYTES: usize = 8 << 20;
        let device = CpuDevice::new(threads);
        let (a, b) = (vec![1.0f32; SIDE * SIDE], vec![1.0f32; SIDE * SIDE]);
        let mut c = vec![0.0f32; SIDE * SIDE];
        let size = Size { m: SIDE, n: SIDE, k: SIDE };
        let mut product = || {
            let output = Output::new(&mut c, SIDE, false);
            device.gemm(size, Matrix::rows(&a, SIDE), Matrix::rows(&b, SIDE), output);
        };
        product();
        let seconds = best(8, &mut product);
        let source = vec![1u8; BYTES];
        let mut target = vec![0u8; BYTES];
        let copying = best(4, &mut || {
            target.copy_from_slice(&source);
            std::hint::black_box(&mut target);
        });
        Self {
            flops_per_s: 2.0 * (SIDE * SIDE * SIDE) as f64 / seconds,
            bytes_per_s: 2.0 * BYTES as f64 / copying,
            memory_bytes: None,
        }
    }
}

/// The fastest of `times` runs, in seconds.
fn best(times: usize, run: &mut dyn FnMut()) -> f64 {
    let one = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..times).map(one).fold(f64::INFINITY, f64::min)
}

/// A named number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What it holds.
    pub name: String,
    /// How much.
    pub bytes: usize,
}

/// One kind of op in a training step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OpCost {
    /// Its name.
    pub op: String,
    /// How often a micro-batch runs it.
    pub count: usize,
    /// FLOPs of a micro-batch.
    pub flops: f64,
    /// Bytes moved by a micro-batch.
    pub bytes: f64,
    /// Roofline seconds of a micro-batch.
    pub seconds: f64,
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Trainable and frozen parameters.
    pub parameters: usize,
    /// Of these, in matrix products for every token, the head included, the embedding table not.
    pub matrix_parameters: usize,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// Ranks.
    pub ranks: usize,
    /// Lanes of a step.
    pub lanes: usize,
    /// Micro-batches of a step.
    pub micro_batches: usize,
    /// Gradient buffers of the rank that needs most.
    pub gradient_buffers: usize,
    /// Tokens of a step.
    pub tokens_per_step: u64,
    /// The regions of the largest rank's arena.
    pub arena: Vec<Part>,
    /// Their sum, to the byte.
    pub arena_bytes: usize,
    /// Host memory of all ranks together: rings, snapshots, packing scratch.
    pub host: Vec<Part>,
    /// Allowance for everything else.
    pub outside_bytes: usize,
    /// Model FLOPs of a step, recompute not counted.
    pub flops_per_step: f64,
    /// The peaks that times are computed with.
    pub peaks: Peaks,
    /// Ops of a micro-batch by time.
    pub ops: Vec<OpCost>,
    /// Roofline seconds of a step: micro-batches of the busiest rank, one after the other.
    pub seconds_per_step: f64,
    /// Whether the arena fits a device; `None` if its memory is not known.
    pub fits: Option<bool>,
}

impl Plan {
    /// Sum of the host parts.
    pub fn host_bytes(&self) -> usize {
        self.host.iter().map(|part| part.bytes).sum()
    }
}

/// Plans a run of `config` with an embedding of `vocabulary` rows.
///
/// # Errors
/// [`Failure`] for a configuration whose parts do not fit together.
pub fn plan(
    config: &Config,
    vocabulary: usize,
    peaks: Peaks,
    threads: usize,
) -> Result<Plan, Failure> {
    let experiment = Experiment::new(config, vocabulary, None)?;
    let workload: &dyn Workload = &experiment;
    let ranks = config.run.ranks;
    let zero = if config.run.zero == 0 { Zero::Zero0 } else { Zero::Zero1 };
    let mut largest: Option<RankMemory> = None;
    let mut rings = 0;
    for rank in 0..ranks {
        let memory = RankMemory::new(workload, ranks, rank, zero)?;
        rings += SlotShape::new(workload, &memory.tree, rank).ring_bytes();
        if largest.as_ref().is_none_or(|l| l.arena.bytes() < memory.arena.bytes()) {
            largest = Some(memory);
        }
    }
    let largest = largest.ok_or_else(|| Failure::user("run.ranks: expected at least 1"))?;
    let snapshots = SnapshotLayout::new(workload.variables(), workload.layout()).bytes() * SLOTS;
    let part = |name: &str, bytes| Part { name: name.to_string(), bytes };
    let host = vec![
        part("batch slots", rings),
        part("snapshot slots", snapshots),
        part("packing scratch", ranks * CpuDevice::host_bytes_for(threads)),
    ];
    let train = &workload.programs()[0];
    let ops = by_op(train.costs().map(|node| (node.op, node.cost)), peaks);
    let batch = workload.batch();
    let owned = (0..ranks).map(|r| batch.micro_batches_of(&largest.tree.lanes_of(r)).len());
    let busiest = owned.max().unwrap_or(0);
    let micro_seconds: f64 = ops.iter().map(|op| op.seconds).sum();
    let regions = largest.arena.regions().iter().filter(|region| region.span.bytes > 0);
    Ok(Plan {
        parameters: workload.variables().parameters().iter().map(|p| p.elements()).sum(),
        matrix_parameters: experiment.model().matrix_parameters(),
        vocabulary,
        ranks,
        lanes: batch.lanes,
        micro_batches: batch.micro_batches(),
        gradient_buffers: largest.tree.max_buffers(),
        tokens_per_step: workload.tokens_per_step(),
        arena: regions.map(|region| part(&region.name, region.span.bytes)).collect(),
        arena_bytes: largest.arena.bytes(),
        host,
        outside_bytes: OUTSIDE_CPU_BYTES,
        flops_per_step: workload.flops_per_step(),
        peaks,
        seconds_per_step: micro_seconds * busiest as f64,
        fits: peaks.memory_bytes.map(|memory| largest.arena.bytes() <= memory),
        ops,
    })
}

/// Sums costs by op, the slowest first.
fn by_op(costs: impl Iterator<Item = (&'static str, Cost)>, peaks: Peaks) -> Vec<OpCost> {
    let mut sums: BTreeMap<&'static str, OpCost> = BTreeMap::new();
    for (op, cost) in costs {
        let empty = OpCost { op: op.to_string(), count: 0, flops: 0.0, bytes: 0.0, seconds: 0.0 };
        let sum = sums.entry(op).or_insert(empty);
        sum.count += 1;
        sum.flops += cost.flops;
        sum.bytes += cost.bytes;
        sum.seconds += cost.seconds(peaks.flops_per_s, peaks.bytes_per_s);
    }
    let mut ops: Vec<OpCost> = sums.into_values().collect();
    ops.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    ops
}
