//! What ranks do together, behind one trait: graph, reducer and optimizer know nothing else of it.
//!
//! Duty: move bytes between ranks, and sum them in one fixed order (`tree`, `join`).
//! Ownership: a communicator belongs to its rank's one enqueuing thread. It owns no tensor memory.
//! Prohibitions: no allocation in a call, no sum in an order that depends on arrival, no sum over
//! wires narrower than 32 bits, no endless wait.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::memory::DeviceSlice;

pub mod join;
pub mod local;
pub(crate) mod peer;
pub mod rendezvous;
pub mod tree;

#[cfg(test)]
mod tests;

pub use join::join;
pub use local::{LocalCommunicator, LocalGroup};
pub use tree::{Fold, JoinTree, LANES_MAX, LaneStep, LaneTree, Piece, Subtree};

/// Most ranks in a group: a rank owns at least one lane.
pub const RANKS_MAX: usize = LANES_MAX;

/// One rank's end of a group of ranks.
///
/// All ranks make the same calls in the same order. A call with no bytes to move is still a call.
///
/// **When a call is complete.** An implementation over streams only *orders* the work on its
/// communication stream and returns; the call is complete when that stream has passed it, and
/// whoever needs the result waits for an event recorded behind it. Errors may then surface in a
/// later call. The local implementation has completed on return. Code written for the first works
/// with the second.
///
/// **Failure.** After any error the group is over: every pending and later call on every rank
/// returns [`Error::Collective`], whose text names the rank at fault. Dropping a communicator
/// counts as leaving, so peers that still wait for it get an error and do not hang.
///
/// # Safety
/// Methods that touch memory are unsafe. For all of them the caller vouches that, from the call
/// until it is complete:
/// * every slice lies in live memory that this communicator's device can reach;
/// * nobody but this call writes what is sent, or reads or writes what is received;
/// * no memory is given by two ranks.
///
/// Slices within one call do not overlap, except where a method says so. The local implementation
/// checks this last point and the agreement of sizes; a call that fails may leave anything in what
/// is received.
pub trait Communicator {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// Number of ranks in the group.
    fn size(&self) -> usize;

    /// Passes when every rank has called it.
    ///
    /// # Errors
    /// [`Error::Collective`]: see the trait.
    fn barrier(&mut self) -> Result<()>;

    /// Copies the root's `buffer` into everybody's. All have the same length.
    ///
    /// # Safety
    /// See the trait. The root's buffer is sent, the others' are received.
    ///
    /// # Errors
    /// [`Error::Collective`]: see the trait; also when roots or lengths disagree.
    unsafe fn broadcast(&mut self, root: usize, buffer: DeviceSlice) -> Result<()>;

    /// Copies rank q's `send` into everybody's `receive[q]`, for every q.
    ///
    /// Lengths may differ from rank to rank and may be 0. The own part may already be in place:
    /// `send` may be `receive[rank]`.
    ///
    /// # Safety
    /// See the trait.
    ///
    /// # Errors
    /// [`Error::Collective`]: see the trait; also when lengths disagree.
    unsafe fn all_gather(&mut self, send: DeviceSlice, receive: &[DeviceSlice]) -> Result<()>;

    /// Copies rank p's `send[q]` into rank q's `receive[p]`, for every pair.
    ///
    /// Lengths may differ from pair to pair and may be 0. The own part may already be in place:
    /// `send[rank]` may be `receive[rank]`.
    ///
    /// # Safety
    /// See the trait.
    ///
    /// # Errors
    /// [`Error::Collective`]: see the trait; also when lengths disagree.
    unsafe fn all_to_all(&mut self, send: &[DeviceSlice], receive: &[DeviceSlice]) -> Result<()>;

    /// Sums this rank's `pieces` into `output` in the order of `tree`, without meeting anybody.
    ///
    /// It is here because the sum runs where the memory is, ordered behind the call that brought
    /// the pieces. `output` may be any one of the pieces; the others are only read. `dtype` is
    /// `F32`, `F64`, `I32` or `I64`; integers wrap.
    ///
    /// # Safety
    /// See the trait: pieces are sent, `output` is received. Pieces may overlap each other.
    ///
    /// # Errors
    /// [`Error::Collective`] when counts, lengths, dtype or alignment do not fit.
    unsafe fn join(
        &mut self,
        tree: &JoinTree,
        dtype: DType,
        pieces: &[DeviceSlice],
        output: DeviceSlice,
    ) -> Result<()>;

    /// Ends the group: every pending and later call of every rank fails, naming this rank and why.
    fn abort(&mut self, why: &str);

    /// Sums everybody's `send[rank]` into `output`, over [`JoinTree::of_ranks`].
    ///
    /// As many bytes as a ring moves, but one fixed order of additions. The order depends on the
    /// number of ranks: gradients, whose bits must not, go by [`LaneTree`] instead. `staging` has
    /// at least [`reduce_scatter_staging`] bytes; `output` may be `send[rank]`.
    ///
    /// # Safety
    /// See the trait: `staging` and `output` are received.
    ///
    /// # Errors
    /// [`Error::Collective`]: see the trait; also when lengths disagree or staging is too small.
    unsafe fn reduce_scatter(
        &mut self,
        dtype: DType,
        send: &[DeviceSlice],
        staging: DeviceSlice,
        output: DeviceSlice,
    ) -> Result<()> {
        let (rank, size, bytes) = (self.rank(), self.size(), output.bytes());
        let staged = reduce_scatter_staging(bytes, size);
        if send.len() != size || send[rank].bytes() != bytes || staging.bytes() < staged {
            let (parts, has) = (send.len(), staging.bytes());
            let why = format!(
                "{parts} parts for {size} ranks, {bytes} bytes of output, staging of {has} where \
                 {staged} are needed"
            );
            return Err(refuse(self, "reduce_scatter", why));
        }
        let mut pieces = [send[rank]; RANKS_MAX];
        let peers = (0..size).filter(|&peer| peer != rank);
        for (place, peer) in peers.enumerate() {
            pieces[peer] = staging.part(place * bytes, bytes);
        }
        // SAFETY: the caller vouches for `send`, `staging` and `output`; the staged pieces are
        // disjoint, and the own piece is `send[rank]`, already in place.
        unsafe {
            self.all_to_all(send, &pieces[..size])?;
            self.join(&JoinTree::of_ranks(size), dtype, &pieces[..size], output)
        }
    }

    /// Sums everybody's `buffer` in place, over [`JoinTree::of_ranks`]: the same bits everywhere.
    ///
    /// All buffers have the same length; `staging` has at least [`all_reduce_staging`] bytes.
    ///
    /// # Safety
    /// See the trait: `buffer` and `staging` are received.
    ///
    /// # Errors
    /// [`Error::Collective`]: see the trait; also when lengths disagree or staging is too small.
    unsafe fn all_reduce(
        &mut self,
        dtype: DType,
        buffer: DeviceSlice,
        staging: DeviceSlice,
    ) -> Result<()> {
        let (rank, size, bytes) = (self.rank(), self.size(), buffer.bytes());
        let staged = all_reduce_staging(bytes, dtype, size);
        if !bytes.is_multiple_of(dtype.bytes()) || staging.bytes() < staged {
            let why = format!(
                "{bytes} bytes of {dtype}, staging of {} where {staged} are needed",
                staging.bytes()
            );
            return Err(refuse(self, "all_reduce", why));
        }
        let step = part_bytes(bytes, dtype, size);
        let mut parts = [buffer; RANKS_MAX];
        for (place, part) in parts[..size].iter_mut().enumerate() {
            let start = (place * step).min(bytes);
            *part = buffer.part(start, step.min(bytes - start));
        }
        let parts = &parts[..size];
        // SAFETY: the caller vouches for `buffer` and `staging`; the parts are disjoint, and a
        // part is received only after the call that sent it is complete.
        unsafe {
            self.reduce_scatter(dtype, parts, staging, parts[rank])?;
            self.all_gather(parts[rank], parts)
        }
    }
}

/// Bytes of staging that [`Communicator::reduce_scatter`] needs: one part from every peer.
pub const fn reduce_scatter_staging(output_bytes: usize, ranks: usize) -> usize {
    (ranks - 1) * output_bytes
}

/// Bytes of staging that [`Communicator::all_reduce`] needs, enough for every rank's part.
pub const fn all_reduce_staging(buffer_bytes: usize, dtype: DType, ranks: usize) -> usize {
    reduce_scatter_staging(part_bytes(buffer_bytes, dtype, ranks), ranks)
}

/// Bytes of the longest part when whole elements are dealt to the ranks.
const fn part_bytes(buffer_bytes: usize, dtype: DType, ranks: usize) -> usize {
    (buffer_bytes / dtype.bytes()).div_ceil(ranks) * dtype.bytes()
}

/// Ends the group for a call that this rank got wrong, and gives the error to return.
fn refuse<C: Communicator + ?Sized>(
    communicator: &mut C,
    what: &'static str,
    why: String,
) -> Error {
    let rank = communicator.rank();
    communicator.abort(&format!("{what}: {why}"));
    Error::Collective { what, rank, why }
}
