//! The optimizer: this rank's shard of master weights and state vectors. Sums of squares, the
//! decision to update or to skip, the update.
//!
//! Every rank decides from the same gathered sums in the same order, so all skip or none does. The
//! decision stays on the device; the host reads a copy of it ([`crate::outcome`]).
//!
//! Ownership: master weights, state vectors, sums of squares, the decision and the fingerprints.

use std::ops::Range;

use octet_kernels::device::BlockSums;
use octet_kernels::error::Result;
use octet_kernels::update::{StepNumbers, UpdateSlice};

use crate::contract::{UpdateGroup, UpdateSettings, Workload};
use crate::engine::Engine;
use crate::rank_memory::Zero;

/// Consecutive elements of a bucket that updates treat alike.
#[derive(Debug, Clone, PartialEq)]
struct Segment {
    elements: Range<usize>,
    group: UpdateGroup,
}

/// The owner of masters, state vectors and the decision; and a table that is made once.
#[derive(Debug)]
pub struct Optimizer {
    /// By bucket, then by the rank whose shard it is.
    segments: Vec<Vec<Vec<Segment>>>,
}

impl Optimizer {
    /// An optimizer for the workload's parameters in a group of so many ranks.
    pub fn new(workload: &dyn Workload, ranks: usize) -> Self {
        let owners = workload.ownership(ranks);
        let shard = |bucket, rank| segments(workload, bucket, &owners.shard(bucket, rank));
        let segments = (0..workload.layout().buckets.len())
            .map(|bucket| (0..ranks).map(|rank| shard(bucket, rank)).collect())
            .collect();
        Self { segments }
    }

    /// Updates what is kept of a bucket, unless it was decided not to.
    pub(crate) fn update(
        &self,
        engine: &Engine,
        settings: &UpdateSettings,
        bucket: usize,
    ) -> Result<()> {
        let (rank, ranks) = (engine.memory.rank, engine.memory.ranks);
        for owner in 0..ranks {
            if engine.memory.zero == Zero::Zero1 && owner != rank {
                continue;
            }
            for (i, segment) in self.segments[bucket][owner].iter().enumerate() {
                let numbers = StepNumbers {
                    learning_rate: settings.learning_rate * segment.group.learning_rate,
                    weight_decay: segment.group.weight_decay,
                };
                // The fingerprint of a bucket is that of the own shard.
                let cell = engine.memory.fingerprint(bucket, owner == rank);
                let slice = update_slice(engine, bucket, &segment.elements);
                let (decision, cell) = (engine.slice(engine.memory.decision), engine.slice(cell));
                let rule = &engine.workload.optimizer().rule;
                // SAFETY: this rank's memory in the order of the step plan: after the reducer and
                // before the gather.
                unsafe { engine.device.update(rule, &numbers, &slice, decision, cell, i == 0) }?;
            }
        }
        Ok(())
    }

    /// Sums of squares of this rank's blocks, all buckets being reduced.
    pub(crate) fn squares(&self, engine: &Engine) -> Result<()> {
        let (memory, layout) = (&engine.memory, engine.workload.layout());
        let mut next = memory.norm.parts[memory.rank].start;
        for bucket in 0..layout.buckets.len() {
            let shard = memory.owners.shard(bucket, memory.rank);
            let cells = next..next + shard.len() / layout.block;
            next = cells.end;
            let sums = engine.slice(memory.norm_cells(&cells));
            // SAFETY: this rank's memory in the order of the step plan: after the reducer.
            unsafe { engine.device.block_sums(engine.gradient(0, &shard), layout.block, sums) }?;
        }
        Ok(())
    }

    /// From the sums of all ranks the norm, and what follows from it.
    pub(crate) fn decide(
        &self,
        engine: &Engine,
        clip_norm: f64,
        updates: Option<u64>,
    ) -> Result<()> {
        let memory = &engine.memory;
        let sums = BlockSums {
            gathered: engine.slice(memory.norm_sums),
            order: engine.slice(memory.norm_order),
            flags: &memory.norm.flags,
        };
        // SAFETY: this rank's memory in the order of the step plan: after the gather of the sums.
        unsafe { engine.device.decide(&sums, clip_norm, updates, engine.slice(memory.decision)) }
    }
}

fn update_slice(engine: &Engine, bucket: usize, elements: &Range<usize>) -> UpdateSlice {
    let dtype = engine.workload.layout().buckets[bucket].dtype;
    let stored = engine.stored(bucket, elements);
    let narrow = dtype.is_narrow();
    UpdateSlice {
        weights: if narrow { engine.masters(bucket, elements) } else { stored },
        rounded: narrow.then_some((dtype, stored)),
        gradient: engine.gradient(0, elements),
        states: engine.workload.optimizer().stored(|i| engine.plane(i, bucket, elements)),
        first_element: elements.start as u64,
        seed: engine.workload.seed(),
    }
}

/// Neighbours that are treated alike, with the padding between them; padding at the edges is zero
/// and stays zero.
fn segments(workload: &dyn Workload, bucket: usize, shard: &Range<usize>) -> Vec<Segment> {
    let layout = workload.layout();
    let mut segments: Vec<Segment> = Vec::new();
    let members = &layout.buckets[bucket].parameters;
    for (i, id) in members.iter().enumerate() {
        let start = layout.placements[id.0].start;
        let next = members.get(i + 1).map(|next| layout.placements[next.0].start);
        // Padding goes with the parameter before it: it is zero and stays zero.
        let end = next.unwrap_or(layout.buckets[bucket].elements.end);
        let (start, end) = (start.max(shard.start), end.min(shard.end));
        if start >= end {
            continue;
        }
        let group = workload.update_group(*id);
        match segments.last_mut() {
            Some(last) if last.group == group => last.elements.end = end,
            _ => segments.push(Segment { elements: start..end, group }),
        }
    }
    segments
}
