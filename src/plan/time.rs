//! Where the time of a step goes: rooflines of the ops, and of everything that is no op.
//!
//! Formulas, for a rank with E flat elements (padding included), R ranks, and a shard of E / R:
//! folding lanes moves 12 bytes an element (two fp32 reads, one write); a rank sends the others'
//! shards of each of its finished subtrees in fp32 and receives its own shard of theirs; an
//! update reads gradient, weight and state and writes all but the gradient; the gather brings the
//! others' shards of the parameters as they are stored (with ZeRO-0: of the gradients, in fp32).
//! Gradients can travel during the last backward, fresh parameters during the next forward: what
//! does not fit there is exposed.

use std::collections::BTreeMap;

use octet_actors::contract::Workload;
use octet_actors::rank_memory::{RankMemory, Zero};
use octet_kernels::graph::{Cost, Peaks, Program};
use serde::Serialize;

use crate::experiment::Experiment;

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

/// One thing that a rank does in a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepPart {
    /// What.
    pub name: &'static str,
    /// Bytes it moves: through memory, or over a link one way.
    pub bytes: f64,
    /// Seconds it takes alone.
    pub seconds: f64,
    /// Seconds of these that nothing hides.
    pub exposed_seconds: f64,
}

/// What one micro-batch of a track takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrackCost {
    /// Its name; that of its program where a run has no tracks.
    pub name: String,
    /// Roofline seconds.
    pub seconds: f64,
    /// Share of the ops' time of a step in which all tracks are.
    pub share: f64,
    /// Bytes of activations and scratch; tracks take turns in one region.
    pub activation_bytes: usize,
}

/// The costs of every program of a step.
pub fn by_track(experiment: &Experiment, peaks: &Peaks) -> Vec<TrackCost> {
    let cost = |program: &Program| TrackCost {
        name: program.name.clone(),
        seconds: program.costs().map(|node| node.cost.seconds(peaks)).sum(),
        share: 0.0,
        activation_bytes: program.activation_bytes,
    };
    let mut tracks: Vec<TrackCost> = experiment.training().map(cost).collect();
    let all: f64 = tracks.iter().map(|track| track.seconds).sum();
    tracks.iter_mut().for_each(|track| track.share = track.seconds / all);
    tracks
}

/// Sums costs by op, the slowest first.
pub fn by_op(costs: impl Iterator<Item = (&'static str, Cost)>, peaks: &Peaks) -> Vec<OpCost> {
    let mut sums: BTreeMap<&'static str, OpCost> = BTreeMap::new();
    for (op, cost) in costs {
        let empty = OpCost { op: op.to_string(), count: 0, flops: 0.0, bytes: 0.0, seconds: 0.0 };
        let sum = sums.entry(op).or_insert(empty);
        sum.count += 1;
        sum.flops += cost.flops;
        sum.bytes += cost.bytes;
        sum.seconds += cost.seconds(peaks);
    }
    let mut ops: Vec<OpCost> = sums.into_values().collect();
    ops.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    ops
}

/// The step of the rank `memory` belongs to, whose busiest sibling runs `micro_batches`, each of
/// `micro_seconds` on average over the programs of a step.
pub fn parts(
    workload: &Experiment,
    memory: &RankMemory,
    peaks: &Peaks,
    micro_batches: usize,
    micro_seconds: f64,
) -> Vec<StepPart> {
    const F32: f64 = 4.0;
    let layout = workload.layout();
    let rank = memory.rank;
    let elements = layout.elements as f64;
    let shard = memory.owners.elements(rank) as f64;
    let kept: f64 = memory.kept.iter().map(|range| range.len() as f64).sum();
    let narrow = layout.buckets.iter().any(|bucket| bucket.dtype.is_narrow());
    let stored = layout.buckets.iter().map(|b| b.dtype.bytes()).max().unwrap_or(4) as f64;
    let lanes = memory.tree.lanes_of(rank).len();
    let own = memory.tree.subtrees_of(rank).len();
    let (pieces, foreign) = (memory.pieces.len(), memory.pieces.len() - own);
    let sent = own as f64 * (elements - shard) * F32;
    let received = foreign as f64 * shard * F32;
    let gathered = match memory.zero {
        Zero::Zero0 => (elements - shard) * F32,
        Zero::Zero1 => (elements - shard) * stored,
    };
    let mean = |bytes: &dyn Fn(&Program) -> f64| {
        let (count, sum) = (workload.training().count(), workload.training().map(bytes));
        sum.sum::<f64>() / count.max(1) as f64
    };
    let input = mean(&|program| program.input_bytes as f64) * micro_batches as f64;
    let sums = (lanes - own) as f64 * elements + (pieces - 1) as f64 * shard;
    let planes: usize = memory.planes.iter().map(|(_, span)| span.bytes).sum();
    // Gradient, weight and state in; weight and state out, and the weight rounded.
    let update = kept * (3.0 * F32 + if narrow { stored } else { 0.0 }) + 2.0 * planes as f64;
    // Over links it can be hidden; through the ranks' one memory it costs a read and a write.
    let (link, hides) = match peaks.link_bytes_per_s {
        Some(link) => (link, 1.0),
        None => (peaks.bytes_per_s / 2.0, 0.0),
    };
    let part = |name, bytes: f64, rate: f64, hidden: f64| {
        let seconds = bytes / rate;
        StepPart { name, bytes, seconds, exposed_seconds: (seconds - hidden).max(0.0) }
    };
    let memory_rate = peaks.bytes_per_s;
    let compute = micro_batches as f64 * micro_seconds;
    let of_ops = |program: &Program| program.costs().map(|node| node.cost.bytes).sum::<f64>();
    let ops = micro_batches as f64 * mean(&of_ops);
    vec![
        StepPart { name: "ops", bytes: ops, seconds: compute, exposed_seconds: compute },
        part("input from host", input, peaks.host_bytes_per_s.unwrap_or(memory_rate), 0.0),
        part("sums of lanes", sums * 3.0 * F32, memory_rate, 0.0),
        part(
            "gradients between ranks",
            sent.max(received),
            link,
            hides * micro_seconds * 2.0 / 3.0,
        ),
        part("norm", shard * F32, memory_rate, 0.0),
        part(workload.optimizer().rule.name(), update, memory_rate, 0.0),
        part("gather between ranks", gathered, link, hides * micro_seconds / 3.0),
    ]
}
