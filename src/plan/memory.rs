//! Memory of a run: the arenas of its ranks, and the buffers that the process holds beside them.

use octet_actors::contract::Workload;
use octet_actors::loader::SlotShape;
use octet_actors::outcome::OutcomeCells;
use octet_actors::rank_memory::RankMemory;
use octet_actors::snapshot::{SLOTS, SnapshotLayout};
use octet_kernels::error::{Error, Result};
use octet_kernels::graph::Target;

use super::machine::total_memory;
use crate::config::RunConfig;

/// The part of the machine's memory that snapshots leave to others: one in so many.
const RESERVE: u64 = 8;

/// What all ranks take.
#[derive(Debug)]
pub struct Memory {
    /// The rank with the largest arena.
    pub largest: RankMemory,
    /// Batch slots of all ranks.
    pub ring_bytes: usize,
    /// What steps have to say, of all ranks.
    pub outcome_bytes: usize,
    /// What else takes memory of the host: batch slots, and on the CPU the arenas.
    beside: usize,
    /// Snapshot slots in memory: 0 if a state passes through a file on its way to a checkpoint.
    pub snapshots: usize,
    /// All of them.
    pub snapshot_bytes: usize,
    /// A checkpoint on disk: every logical tensor once.
    pub checkpoint_bytes: usize,
}

impl Memory {
    /// Plans all ranks.
    ///
    /// # Errors
    /// As [`RankMemory::new`].
    pub fn of(workload: &dyn Workload, run: &RunConfig) -> Result<Self> {
        let mut largest: Option<RankMemory> = None;
        let (mut ring_bytes, mut outcome_bytes, mut arenas) = (0, 0, 0);
        for rank in 0..run.ranks {
            let memory = RankMemory::new(workload, run.ranks, rank, run.placement())?;
            arenas += memory.arena.bytes();
            outcome_bytes += OutcomeCells::bytes(&memory);
            ring_bytes += SlotShape::new(workload, &memory.tree, rank).ring_bytes();
            if largest.as_ref().is_none_or(|l| l.arena.bytes() < memory.arena.bytes()) {
                largest = Some(memory);
            }
        }
        let nobody = || Error::Plan("run.ranks: expected at least 1".to_string());
        let state = SnapshotLayout::of(workload);
        let on_host = workload.programs().iter().all(|p| p.target == Target::Cpu);
        let beside = ring_bytes + outcome_bytes + if on_host { arenas } else { 0 };
        // The host of a GPU may be another machine than this one.
        let room = total_memory().filter(|_| on_host).map(|total| total - total / RESERVE);
        let snapshots = run.snapshots.unwrap_or_else(|| auto(state.bytes(), beside, room));
        Ok(Self {
            largest: largest.ok_or_else(nobody)?,
            ring_bytes,
            outcome_bytes,
            beside,
            snapshots,
            snapshot_bytes: state.bytes() * snapshots,
            checkpoint_bytes: state.tensors().iter().map(|tensor| tensor.span.bytes).sum(),
        })
    }

    /// Bytes of the largest arena.
    pub fn arena_bytes(&self) -> usize {
        self.largest.arena.bytes()
    }

    /// Buffers of the process.
    pub fn host_bytes(&self) -> usize {
        self.ring_bytes + self.outcome_bytes + self.snapshot_bytes
    }

    /// As many slots as there are to be, and no more than a host has room for that has so many
    /// bytes left.
    pub(crate) fn slots_within(&self, slot_bytes: usize, available: Option<u64>) -> usize {
        auto(slot_bytes, self.beside, available).min(self.snapshots)
    }
}

/// As many slots as there is room for beside what else is taken.
fn auto(slot_bytes: usize, beside: usize, room: Option<u64>) -> usize {
    let Some(room) = room else { return SLOTS };
    let left = room.saturating_sub(beside as u64);
    (left / slot_bytes.max(1) as u64).min(SLOTS as u64) as usize
}
