//! What a configuration will take, before anything is taken: memory, FLOPs, time, disk.
//!
//! The arena is the very plan that a run allocates on the target. Times are rooflines: the larger
//! of FLOPs over peak and bytes over bandwidth, summed over ops; what else a step does is in
//! [`time`]. They are the least that a step can take, not what one will.

use std::collections::BTreeMap;

use octet_actors::contract::Workload;
use octet_kernels::cpu::CpuDevice;
use octet_kernels::cuda::step;
use octet_kernels::graph::{Peaks, Program, Target};
use serde::Serialize;

use crate::config::Config;
use crate::experiment::Experiment;
use crate::failure::Failure;
use machine::{Machine, total_memory};
use memory::Memory;
use time::{OpCost, StepPart, TrackCost, by_op, by_track};

mod blocks;
pub mod machine;
pub mod memory;
mod room;
pub mod search;
#[cfg(test)]
mod tests;
pub mod time;
mod vocabulary;

pub use blocks::Blocks;
pub use room::Room;
pub use vocabulary::vocabulary;

/// What a process takes besides arena and host buffers on a CPU: code, stacks, tokenizer, logs.
/// `tests/runs/memory.rs` holds a run to it.
pub const OUTSIDE_CPU_BYTES: usize = 96 << 20;

/// Bytes/s at which a checkpoint is written, where nothing is said: one NVMe disk.
pub const DISK_BYTES_PER_S: f64 = 2e9;

/// A named number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What it holds.
    pub name: String,
    /// How much.
    pub bytes: usize,
}

impl Part {
    fn new(name: &str, bytes: usize) -> Self {
        Self { name: name.to_string(), bytes }
    }
}

/// What times are computed with, for one rank.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Speeds {
    /// FLOP/s of matrix products.
    pub flops_per_s: f64,
    /// Bytes/s of memory.
    pub bytes_per_s: f64,
    /// Bytes/s to other ranks, each way; `None` where they share one memory.
    pub link_bytes_per_s: Option<f64>,
    /// Bytes/s from the host; `None` where its memory is the device's.
    pub host_bytes_per_s: Option<f64>,
    /// Bytes/s to the disk of checkpoints.
    pub disk_bytes_per_s: f64,
}

/// A checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CheckpointCost {
    /// On disk: every logical tensor once.
    pub bytes: usize,
    /// Seconds in which it is written, beside the run.
    pub disk_seconds: f64,
    /// Seconds in which it is copied to the host, all ranks at once; 0 where that is a memory copy.
    pub copy_seconds: f64,
    /// Steps between checkpoints; 0 for the last one only.
    pub every: u64,
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The kind of device.
    pub target: &'static str,
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
    /// What is computed twice; what `"auto"` became.
    pub recompute: String,
    /// The regions of the largest rank's arena.
    pub arena: Vec<Part>,
    /// Their sum, to the byte.
    pub arena_bytes: usize,
    /// Of the libraries' region: the budget of each.
    pub libraries: Vec<Part>,
    /// Host memory of all ranks together: rings, snapshots, packing scratch.
    pub host: Vec<Part>,
    /// Allowances of each device for everything else; on a CPU of the process.
    pub outside: Vec<Part>,
    /// Their sum.
    pub outside_bytes: usize,
    /// Memory of a device, on a CPU of the machine; `None` if it is not known.
    pub memory_bytes: Option<usize>,
    /// What the largest arena may take of it.
    pub capacity_bytes: Option<usize>,
    /// Host memory is taken of the same memory, as on a CPU.
    pub on_host: bool,
    /// Whether it fits; `None` if the memory is not known.
    pub fits: Option<bool>,
    /// How much of a model fits that does not; `None` where all of it does.
    pub blocks: Option<Blocks>,
    /// Model FLOPs of a step, recompute not counted.
    pub flops_per_step: f64,
    /// What times are computed with.
    pub speeds: Speeds,
    /// A micro-batch of each track.
    pub tracks: Vec<TrackCost>,
    /// Ops of a micro-batch of every track by time.
    pub ops: Vec<OpCost>,
    /// Ops of all programs that do not say yet what they ask of the target, and nodes of each.
    pub without_kernels: BTreeMap<String, usize>,
    /// What the busiest rank does in a step.
    pub step: Vec<StepPart>,
    /// The sum of what is exposed of them: the least that a step takes.
    pub seconds_per_step: f64,
    /// Tokens of all ranks at that rate.
    pub tokens_per_s: f64,
    /// Model FLOPs over the peaks of all ranks, at that rate: the most that can be reached.
    pub mfu: f64,
    /// A checkpoint.
    pub checkpoint: CheckpointCost,
    /// The configured steps at that rate, in seconds, evaluations and checkpoints aside.
    pub run_seconds: f64,
}

impl Plan {
    /// Sum of the host parts.
    pub fn host_bytes(&self) -> usize {
        self.host.iter().map(|part| part.bytes).sum()
    }

    /// Whether and how it fits.
    pub fn room(&self) -> Room {
        let host_bytes = if self.on_host { self.host_bytes() } else { 0 };
        let Self { arena_bytes, outside_bytes, memory_bytes, capacity_bytes, .. } = *self;
        Room { arena_bytes, beside_bytes: outside_bytes + host_bytes, memory_bytes, capacity_bytes }
    }
}

/// Plans a run of `config` on `machine`, with an embedding of `vocabulary` rows, so many threads
/// for each rank of a CPU, and a disk that writes `disk` bytes/s.
///
/// # Errors
/// [`Failure`] for a configuration whose parts do not fit together.
pub fn plan(
    config: &Config,
    vocabulary: usize,
    machine: &Machine,
    threads: usize,
    disk: f64,
) -> Result<Plan, Failure> {
    let experiment = Experiment::for_target(config, vocabulary, None, machine.target)?;
    let workload: &dyn Workload = &experiment;
    let ranks = config.run.ranks;
    let memory = Memory::of(workload, &config.run)?;
    let largest = &memory.largest;
    let peaks = machine.peaks(experiment.matrix_dtype(), ranks);
    let costs = experiment.training().flat_map(|program| program.costs());
    let ops = by_op(costs.map(|node| (node.op, node.cost)), &peaks);
    let batch = workload.batch();
    let owned = (0..ranks).map(|r| batch.micro_batches_of(&largest.tree.lanes_of(r)).len());
    let programs = experiment.training().count();
    let micro_seconds = ops.iter().map(|op| op.seconds).sum::<f64>() / programs.max(1) as f64;
    let busiest = owned.max().unwrap_or(0);
    let step = time::parts(&experiment, largest, &peaks, busiest, micro_seconds);
    let seconds_per_step: f64 = step.iter().map(|part| part.exposed_seconds).sum();
    let flops_per_step = workload.flops_per_step();
    let capacity = capacity(machine.target, &memory, ranks, threads);
    let fits = capacity.map(|capacity| largest.arena.bytes() <= capacity);
    let regions = largest.arena.regions().iter().filter(|region| region.span.bytes > 0);
    let outside = outside(machine.target, ranks);
    let samples = workload.samples_before(config.run.steps) as f64;
    let models = experiment.composition().parts.iter();
    Ok(Plan {
        target: machine.target.name(),
        parameters: workload.variables().parameters().iter().map(|p| p.elements()).sum(),
        matrix_parameters: models.map(|part| part.model().matrix_parameters()).sum(),
        vocabulary,
        ranks,
        lanes: batch.lanes,
        micro_batches: batch.micro_batches(),
        gradient_buffers: largest.tree.max_buffers(),
        tokens_per_step: workload.tokens_per_step(),
        recompute: experiment.config().model.recompute.to_string(),
        arena: regions.map(|region| Part::new(&region.name, region.span.bytes)).collect(),
        arena_bytes: largest.arena.bytes(),
        libraries: parts(machine.target.libraries()),
        host: host(machine.target, &memory, ranks, threads),
        outside_bytes: outside.iter().map(|part| part.bytes).sum(),
        outside,
        memory_bytes: device_memory(machine.target),
        capacity_bytes: capacity,
        on_host: machine.target.memory_bytes().is_none(),
        fits,
        blocks: match capacity.filter(|_| fits == Some(false)) {
            Some(capacity) => {
                let whole = (largest.arena.bytes(), capacity);
                Some(Blocks::of(config, vocabulary, machine.target, threads, whole)?)
            }
            None => None,
        },
        flops_per_step,
        speeds: speeds(&peaks, disk),
        tracks: by_track(&experiment, &peaks),
        ops,
        without_kernels: without_kernels(workload),
        step,
        seconds_per_step,
        tokens_per_s: workload.tokens_per_step() as f64 / seconds_per_step,
        mfu: flops_per_step / seconds_per_step / (peaks.flops_per_s * ranks as f64),
        checkpoint: checkpoint(config, &memory, &peaks, disk),
        run_seconds: seconds_per_step * samples / batch.global as f64,
    })
}

/// How often programs have an op that asks for nothing on the GPU that they were compiled for; and
/// what a step needs besides, if this build has no kernels of it.
pub fn without_kernels(workload: &dyn Workload) -> BTreeMap<String, usize> {
    let mut missing = BTreeMap::new();
    for (op, count) in workload.programs().iter().flat_map(Program::without_launches) {
        *missing.entry(op.to_string()).or_default() += count;
    }
    if workload.programs().iter().any(|program| program.target != Target::Cpu) {
        for module in step::missing(workload.optimizer()) {
            *missing.entry(module.to_string()).or_default() += 1;
        }
    }
    missing
}

/// What a rank's arena may take: a GPU's memory less the allowances, on a CPU this rank's share of
/// the machine less host buffers and the process.
fn capacity(target: Target, memory: &Memory, ranks: usize, threads: usize) -> Option<usize> {
    let outside: usize = outside(target, ranks).iter().map(|part| part.bytes).sum();
    let total = device_memory(target)?;
    if target.memory_bytes().is_some() {
        return Some(total.saturating_sub(outside));
    }
    let host: usize = host(target, memory, ranks, threads).iter().map(|p| p.bytes).sum();
    Some(total.saturating_sub(outside + host) / ranks)
}

fn device_memory(target: Target) -> Option<usize> {
    let machine = || total_memory().and_then(|bytes| usize::try_from(bytes).ok());
    target.memory_bytes().or_else(machine)
}

fn outside(target: Target, ranks: usize) -> Vec<Part> {
    match target {
        Target::Cpu => vec![Part::new("process", OUTSIDE_CPU_BYTES)],
        _ => parts(&target.outside(ranks)),
    }
}

fn host(target: Target, memory: &Memory, ranks: usize, threads: usize) -> Vec<Part> {
    let mut host = vec![
        Part::new("batch slots", memory.ring_bytes),
        Part::new("outcome cells", memory.outcome_bytes),
        Part::new("snapshot slots", memory.snapshot_bytes),
    ];
    if target == Target::Cpu {
        host.push(Part::new("packing scratch", ranks * CpuDevice::host_bytes_for(threads)));
    }
    host
}

fn parts(named: &[(&str, usize)]) -> Vec<Part> {
    named.iter().map(|(name, bytes)| Part::new(name, *bytes)).collect()
}

fn speeds(peaks: &Peaks, disk: f64) -> Speeds {
    Speeds {
        flops_per_s: peaks.flops_per_s,
        bytes_per_s: peaks.bytes_per_s,
        link_bytes_per_s: peaks.link_bytes_per_s,
        host_bytes_per_s: peaks.host_bytes_per_s,
        disk_bytes_per_s: disk,
    }
}

fn checkpoint(config: &Config, memory: &Memory, peaks: &Peaks, disk: f64) -> CheckpointCost {
    let bytes = memory.checkpoint_bytes;
    let share = bytes as f64 / config.run.ranks as f64;
    CheckpointCost {
        bytes,
        disk_seconds: bytes as f64 / disk,
        copy_seconds: peaks.host_bytes_per_s.map_or(0.0, |rate| share / rate),
        every: config.checkpoint.every,
    }
}
