//! Memory of a run: the arenas of its ranks, and the buffers that the process holds beside them.

use octet_actors::contract::Workload;
use octet_actors::loader::SlotShape;
use octet_actors::rank_memory::{RankMemory, Zero};
use octet_actors::snapshot::{SLOTS, SnapshotLayout};
use octet_kernels::error::{Error, Result};

/// What all ranks take.
#[derive(Debug)]
pub struct Memory {
    /// The rank with the largest arena.
    pub largest: RankMemory,
    /// Batch slots of all ranks.
    pub ring_bytes: usize,
    /// Both snapshot slots.
    pub snapshot_bytes: usize,
    /// A checkpoint on disk: every logical tensor once.
    pub checkpoint_bytes: usize,
}

impl Memory {
    /// Plans all ranks.
    ///
    /// # Errors
    /// As [`RankMemory::new`].
    pub fn of(workload: &dyn Workload, ranks: usize, zero: Zero) -> Result<Self> {
        let mut largest: Option<RankMemory> = None;
        let mut ring_bytes = 0;
        for rank in 0..ranks {
            let memory = RankMemory::new(workload, ranks, rank, zero)?;
            ring_bytes += SlotShape::new(workload, &memory.tree, rank).ring_bytes();
            if largest.as_ref().is_none_or(|l| l.arena.bytes() < memory.arena.bytes()) {
                largest = Some(memory);
            }
        }
        let nobody = || Error::Plan("run.ranks: expected at least 1".to_string());
        let snapshots = SnapshotLayout::of(workload);
        Ok(Self {
            largest: largest.ok_or_else(nobody)?,
            ring_bytes,
            snapshot_bytes: snapshots.bytes() * SLOTS,
            checkpoint_bytes: snapshots.tensors().iter().map(|tensor| tensor.span.bytes).sum(),
        })
    }

    /// Bytes of the largest arena.
    pub fn arena_bytes(&self) -> usize {
        self.largest.arena.bytes()
    }

    /// Buffers of the process.
    pub fn host_bytes(&self) -> usize {
        self.ring_bytes + self.snapshot_bytes
    }
}
