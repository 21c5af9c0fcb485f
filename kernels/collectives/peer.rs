//! Ranks of one process with a GPU each: bytes go from memory to memory by the copy engines, in the
//! order of each rank's communication stream.
//!
//! Duty: events between the ranks' streams, so that a copy begins when its sender is ready and what
//! was sent is not written before it is copied. How ranks meet is [`super::rendezvous`]'s: a host
//! thread waits for the others only to learn that their events are recorded.

use std::sync::{Arc, OnceLock};

use cudarc::driver::sys::CUevent;

use crate::collectives::rendezvous::{Carrier, Delivery};
use crate::collectives::{JoinTree, join};
use crate::cpu::CpuDevice;
use crate::cuda::context::Context;
use crate::cuda::gpu::Gpu;
use crate::cuda::step;
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::DeviceSlice;
use crate::ops::Stream;

#[cfg(test)]
mod tests;

/// What the others know of a rank.
struct End {
    context: Arc<Context>,
    /// What it sends is there, and what it receives into is free.
    ready: CUevent,
    /// It has copied what it receives.
    done: CUevent,
}

// SAFETY: handles of the driver, which may be used by any thread.
unsafe impl Send for End {}
// SAFETY: as above.
unsafe impl Sync for End {}

impl Drop for End {
    fn drop(&mut self) {
        self.context.destroy(self.ready);
        self.context.destroy(self.done);
    }
}

/// One rank's streams and events.
pub(crate) struct Peer {
    rank: usize,
    /// By rank; set before a rank's first call.
    ends: Arc<Vec<OnceLock<End>>>,
    gpu: Option<Arc<Gpu>>,
    /// Whether this rank's context was told of the others.
    reaches: bool,
}

impl Peer {
    /// Of each rank, to be opened on its thread.
    pub(crate) fn group(ranks: usize) -> Vec<Self> {
        let ends = Arc::new((0..ranks).map(|_| OnceLock::new()).collect::<Vec<_>>());
        let one = |rank| Self { rank, ends: ends.clone(), gpu: None, reaches: false };
        (0..ranks).map(one).collect()
    }

    /// Takes a rank's GPU.
    pub(crate) fn open(&mut self, gpu: Arc<Gpu>) -> Result<()> {
        let context = gpu.context.clone();
        let (ready, done) = (context.event(false)?, context.event(false)?);
        drop(self.ends[self.rank].set(End { context, ready, done }));
        self.gpu = Some(gpu);
        Ok(())
    }

    fn gpu(&self) -> &Arc<Gpu> {
        self.gpu.as_ref().expect("opened before the first call")
    }

    fn end(&self, rank: usize) -> &End {
        self.ends[rank].get().expect("whoever has met the others is open")
    }

    /// Lets this rank's communication wait for an event of every other rank.
    fn wait_for_all(&self, event: impl Fn(&End) -> CUevent) -> Result<()> {
        let context = &self.gpu().context;
        let mut others = (0..self.ends.len()).filter(|&other| other != self.rank);
        others.try_for_each(|rank| context.wait(Stream::Communication, event(self.end(rank))))
    }
}

impl Carrier for Peer {
    fn ready(&mut self) -> Result<()> {
        self.gpu().context.record(self.end(self.rank).ready, Stream::Communication)
    }

    unsafe fn carry(&mut self, deliveries: &[Delivery]) -> Result<()> {
        let context = self.gpu().context.clone();
        if !std::mem::replace(&mut self.reaches, true) {
            let others = (0..self.ends.len()).filter(|&other| other != self.rank);
            others.for_each(|other| context.reach(&self.end(other).context));
        }
        self.wait_for_all(|end| end.ready)?;
        for &Delivery { sender, from, to } in deliveries {
            let sender = &*self.end(sender).context;
            // SAFETY: the caller vouches for both.
            unsafe { context.copy_from(Stream::Communication, (sender, from), to) }?;
        }
        context.record(self.end(self.rank).done, Stream::Communication)
    }

    fn carried(&mut self) -> Result<()> {
        self.wait_for_all(|end| end.done)
    }

    unsafe fn join(
        &mut self,
        tree: &JoinTree,
        dtype: DType,
        pieces: &[DeviceSlice],
        output: DeviceSlice,
    ) -> Result<()> {
        if let [piece] = pieces {
            // SAFETY: the caller vouches for both.
            return unsafe { self.gpu().context.copy(Stream::Communication, *piece, output) };
        }
        let kernel = step::join(tree, dtype, pieces, output);
        let (tree, pieces) = (*tree, pieces.to_vec());
        let on_a_cpu = move |_: &CpuDevice| {
            // SAFETY: the caller vouches for all of them until the stream comes here.
            unsafe { join(&tree, dtype, &pieces, output) }
        };
        // SAFETY: as above.
        unsafe { self.gpu().step(Stream::Communication, &[kernel], on_a_cpu) }
    }
}
