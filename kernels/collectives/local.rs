//! Ranks that are threads of one process, with host memory.
//!
//! Duty: the collectives by plain copies, done when a call returns; how ranks meet is
//! [`rendezvous`]'s.

use std::time::Duration;

use crate::collectives::rendezvous::{self, Carrier, Delivery, Member};
use crate::collectives::{JoinTree, join};
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::DeviceSlice;

#[cfg(test)]
mod tests;

/// A group of ranks in this process.
#[derive(Debug)]
pub struct LocalGroup;

impl LocalGroup {
    /// The communicators of `size` ranks, in rank order, to be handed to their threads.
    ///
    /// A call that waits for others longer than `timeout` fails, on every rank. Panics unless
    /// `1 <= size <= RANKS_MAX`.
    #[expect(clippy::new_ret_no_self, reason = "a group is its communicators")]
    pub fn new(size: usize, timeout: Duration) -> Vec<LocalCommunicator> {
        rendezvous::group(vec![Copies; size], timeout)
    }
}

/// One rank's end of a [`LocalGroup`]. Dropping it leaves the group.
pub type LocalCommunicator = Member<Copies>;

/// Copies by the rank that receives.
#[derive(Debug, Clone, Copy)]
pub struct Copies;

impl Carrier for Copies {
    fn ready(&mut self) -> Result<()> {
        Ok(())
    }

    unsafe fn carry(&mut self, deliveries: &[Delivery]) -> Result<()> {
        for Delivery { from, to, .. } in deliveries {
            // SAFETY: the caller vouches for both, and that they do not overlap.
            unsafe { from.pointer().copy_to_nonoverlapping(to.pointer(), to.bytes()) };
        }
        Ok(())
    }

    fn carried(&mut self) -> Result<()> {
        Ok(())
    }

    unsafe fn join(
        &mut self,
        tree: &JoinTree,
        dtype: DType,
        pieces: &[DeviceSlice],
        output: DeviceSlice,
    ) -> Result<()> {
        // SAFETY: the caller's promise is the one that `join` asks for.
        unsafe { join(tree, dtype, pieces, output) }
    }
}
