//! What a step has to say, in host memory: copied out behind it, read when its event has been
//! passed.
//!
//! Owns one cell for each step that may be in flight, and one more. A step's cell, and its events,
//! go by its *round*. Whoever reads a cell knows that the round's event has been passed.

use octet_kernels::device::Decision;
use octet_kernels::error::Result;
use octet_kernels::memory::{HostBuffer, Span};
use octet_kernels::ops::Stream;

use crate::engine::Engine;
use crate::rank_memory::{METRIC_BYTES, RankMemory};

/// Steps that a rank may have been given before the first of them has said how it went, at most.
pub const DEPTH_MAX: usize = 2;

/// Rounds that steps take in turn: what the step before left is still read with the next one's
/// outcome.
pub const ROUNDS: usize = DEPTH_MAX + 1;

/// Cells start at multiples of this many bytes, and so do their parts.
const ALIGNMENT: usize = 64;

/// The cells of a rank.
#[derive(Debug)]
pub struct OutcomeCells {
    memory: HostBuffer,
    /// Of a cell.
    bytes: usize,
}

/// What is copied, where it lies on the device, and where in a cell.
fn parts(memory: &RankMemory) -> [(Span, usize); 3] {
    let mut end = 0;
    [memory.decision, memory.fingerprints, memory.metrics].map(|span| {
        let start = end;
        end += span.bytes.next_multiple_of(ALIGNMENT);
        (span, start)
    })
}

impl OutcomeCells {
    fn cell_bytes(memory: &RankMemory) -> usize {
        let [.., (span, start)] = parts(memory);
        start + span.bytes.next_multiple_of(ALIGNMENT)
    }

    /// Host bytes of the cells of a rank.
    pub fn bytes(memory: &RankMemory) -> usize {
        ROUNDS * Self::cell_bytes(memory)
    }

    /// The cells of an engine.
    ///
    /// # Errors
    /// From the device when there is no memory.
    pub fn new(engine: &Engine) -> Result<Self> {
        let memory = engine.device.host_memory(Self::bytes(&engine.memory))?;
        Ok(Self { memory, bytes: Self::cell_bytes(&engine.memory) })
    }

    /// Copies what a step says into its cell, and marks the place.
    pub(crate) fn copy(&self, engine: &Engine, round: usize) -> Result<()> {
        for (span, at) in parts(&engine.memory) {
            let to = self.memory.part(round * self.bytes + at, span.bytes);
            // SAFETY: this rank's memory in the order of the plan; the cell is read when the event
            // has been passed, and the round comes again only after that.
            unsafe { engine.device.copy_out(Stream::CopyOut, engine.slice(span), to) }?;
        }
        engine.device.record(engine.memory.outcome_event(round), Stream::CopyOut)
    }

    /// Waits until a step has said how it went, and tells whether it has updated anything.
    pub(crate) fn updated(&self, engine: &Engine, round: usize) -> Result<bool> {
        engine.device.synchronize(engine.memory.outcome_event(round))?;
        Ok(self.decision(engine, round).skip == 0)
    }

    fn part(&self, engine: &Engine, round: usize, part: usize) -> &[u8] {
        let (span, at) = parts(&engine.memory)[part];
        &self.memory.as_slice()[round * self.bytes + at..][..span.bytes]
    }

    /// What was decided.
    pub fn decision(&self, engine: &Engine, round: usize) -> Decision {
        bytemuck::pod_read_unaligned(self.part(engine, round, 0))
    }

    /// By bucket: the fingerprint of this rank's shard after the update; zeros if none was made.
    pub fn fingerprints(&self, engine: &Engine, round: usize) -> Vec<u64> {
        let buckets = engine.workload.layout().buckets.len();
        if self.decision(engine, round).skip != 0 {
            return vec![0; buckets];
        }
        bytemuck::cast_slice(self.part(engine, round, 1))[..buckets].to_vec()
    }

    /// What a run of the step has fetched, by its row.
    pub fn row(&self, engine: &Engine, round: usize, row: usize) -> &[u32] {
        let columns = engine.memory.columns;
        let bytes = columns * METRIC_BYTES;
        bytemuck::cast_slice(&self.part(engine, round, 2)[row * bytes..][..bytes])
    }
}
