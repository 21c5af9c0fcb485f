//! A device that does its work late, for tests: streams run in a random legal order by seed, and
//! host memory is read and written when a copy's turn comes. So a wait that is missing, or host
//! memory that is reused too early, changes results, as it would on a GPU.
//!
//! It computes with the CPU's kernels. The streams themselves ([`streams`]) know nothing of
//! devices.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::collectives::{Communicator, JoinTree, LocalGroup};
use crate::cpu::CpuDevice;
use crate::device::{BlockSums, Device, Event, Events, Open, Opened, Pinned, RunArguments};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Bindings, Program, RunContext};
use crate::lazy::streams::Streams;
use crate::memory::{Arena, ArenaPlan, DeviceSlice, HostBuffer, HostSlice};
use crate::ops::Stream;
use crate::update::{Rule, StepNumbers, UpdateSlice};

pub mod streams;
#[cfg(test)]
mod tests;

/// How long a rank waits for its peers in a test.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Devices of `ranks` ranks that can meet. Waits for the event `missing` are left out, those of the
/// host too; then no time is refused either, so that only results tell.
pub fn open(ranks: usize, seed: u64, missing: Option<Event>) -> Vec<Open> {
    let one = |inner| {
        let open = move || {
            let inner: Box<dyn Communicator> = Box::new(inner);
            let (rank, size) = (inner.rank(), inner.size());
            let streams = Rc::new(RefCell::new(Streams::new(seed * 64 + rank as u64)));
            let inner = Rc::new(RefCell::new(inner));
            let cpu = Rc::new(CpuDevice::new(1));
            let device =
                LazyDevice { cpu, inner: inner.clone(), streams: streams.clone(), missing };
            let communicator = LazyCommunicator { rank, size, inner, streams };
            Ok((
                Box::new(device) as Box<dyn Device>,
                Box::new(communicator) as Box<dyn Communicator>,
            ) as Opened)
        };
        Box::new(open) as Open
    };
    LocalGroup::new(ranks, TIMEOUT).into_iter().map(one).collect()
}

/// Shared by a rank's device and communicator, on its one thread.
type Shared<T> = Rc<RefCell<T>>;

struct LazyDevice {
    cpu: Rc<CpuDevice>,
    /// Meets the other ranks when a node's turn comes.
    inner: Shared<Box<dyn Communicator>>,
    streams: Shared<Streams>,
    missing: Option<Event>,
}

impl LazyDevice {
    fn push(
        &self,
        stream: Stream,
        work: impl FnOnce(&CpuDevice) -> Result<()> + 'static,
    ) -> Result<()> {
        let cpu = self.cpu.clone();
        self.streams.borrow_mut().push(stream, Box::new(move || work(&cpu)))
    }
}

impl Device for LazyDevice {
    fn allocate(&self, plan: &ArenaPlan, events: Events) -> Result<Arena> {
        self.cpu.allocate(plan, events)
    }

    fn host_memory(&self, bytes: usize) -> Result<HostBuffer> {
        HostBuffer::plain(bytes)
    }

    unsafe fn pin(&self, memory: HostSlice) -> Result<Pinned> {
        // SAFETY: the caller vouches for it.
        unsafe { self.cpu.pin(memory) }
    }

    fn record(&self, event: Event, stream: Stream) -> Result<()> {
        // An event that tells the time does so when the stream comes here.
        self.push(stream, move |cpu| cpu.record(event, stream))?;
        self.streams.borrow_mut().record(event, stream)
    }

    fn wait(&self, stream: Stream, event: Event) -> Result<()> {
        if self.missing == Some(event) {
            return Ok(());
        }
        self.streams.borrow_mut().wait(stream, event)
    }

    fn reached(&self, event: Event) -> Result<bool> {
        if self.missing == Some(event) {
            return Ok(true);
        }
        self.streams.borrow_mut().reached(event)
    }

    fn synchronize(&self, event: Event) -> Result<()> {
        if self.missing == Some(event) {
            return Ok(());
        }
        self.streams.borrow_mut().synchronize(event)
    }

    fn elapsed(&self, from: Event, to: Event) -> Result<Duration> {
        for event in [from, to] {
            if !self.streams.borrow().passed(event) {
                if self.missing.is_some() {
                    return Ok(Duration::ZERO);
                }
                return Err(Error::Device(format!("event {} is not passed", event.0)));
            }
        }
        self.cpu.elapsed(from, to)
    }

    fn finish(&self) -> Result<()> {
        self.streams.borrow_mut().finish()
    }

    unsafe fn copy_in(&self, stream: Stream, from: HostSlice, to: DeviceSlice) -> Result<()> {
        // SAFETY: the caller vouches for both until the stream comes here.
        self.push(stream, move |cpu| unsafe { cpu.copy_in(stream, from, to) })
    }

    unsafe fn copy_out(&self, stream: Stream, from: DeviceSlice, to: HostSlice) -> Result<()> {
        // SAFETY: as in `copy_in`.
        self.push(stream, move |cpu| unsafe { cpu.copy_out(stream, from, to) })
    }

    unsafe fn set_arguments(
        &self,
        stream: Stream,
        arguments: RunArguments,
        to: DeviceSlice,
    ) -> Result<()> {
        // SAFETY: as in `copy_in`.
        self.push(stream, move |cpu| unsafe { cpu.set_arguments(stream, arguments, to) })
    }

    unsafe fn copy(&self, from: DeviceSlice, to: DeviceSlice) -> Result<()> {
        // SAFETY: as in `copy_in`.
        self.push(Stream::Compute, move |cpu| unsafe { cpu.copy(from, to) })
    }

    unsafe fn clear(&self, slice: DeviceSlice) -> Result<()> {
        // SAFETY: as in `copy_in`.
        self.push(Stream::Compute, move |cpu| unsafe { cpu.clear(slice) })
    }

    unsafe fn run(
        &self,
        program: &Program,
        bindings: &Bindings<'_>,
        context: &RunContext<'_>,
        nodes: Range<usize>,
    ) -> Result<()> {
        // SAFETY: programs live as long as the workload whose device this is.
        let program: &'static Program = unsafe { &*std::ptr::from_ref(program) };
        for node in nodes {
            let (parameters, gradients) =
                (bindings.parameters.to_vec(), bindings.gradients.to_vec());
            let rest: Bindings<'static> = Bindings { parameters: &[], gradients: &[], ..*bindings };
            let (seed, slice) = (context.seed, context.slice);
            let first = context.first_in_lane.to_vec();
            let inner = context.communicator.map(|_| self.inner.clone());
            let work = move |cpu: &CpuDevice| {
                let bindings = Bindings { parameters: &parameters, gradients: &gradients, ..rest };
                let communicator = inner.as_deref();
                let context = RunContext { seed, slice, first_in_lane: &first, communicator };
                // SAFETY: the caller vouches for all regions until the stream comes here.
                unsafe { cpu.run(program, &bindings, &context, node..node + 1) }
            };
            let meets = program.meetings().contains(&node);
            self.push(if meets { Stream::Communication } else { Stream::Compute }, work)?;
        }
        Ok(())
    }

    unsafe fn add_into(&self, into: DeviceSlice, from: DeviceSlice) -> Result<()> {
        // SAFETY: as in `copy_in`.
        self.push(Stream::Compute, move |cpu| unsafe { cpu.add_into(into, from) })
    }

    unsafe fn block_sums(
        &self,
        gradient: DeviceSlice,
        block_elements: usize,
        sums: DeviceSlice,
    ) -> Result<()> {
        let work = move |cpu: &CpuDevice| {
            // SAFETY: as in `copy_in`.
            unsafe { cpu.block_sums(gradient, block_elements, sums) }
        };
        self.push(Stream::Compute, work)
    }

    unsafe fn decide(
        &self,
        sums: &BlockSums<'_>,
        clip_norm: f64,
        updates: Option<u64>,
        decision: DeviceSlice,
    ) -> Result<()> {
        let (gathered, order, flags) = (sums.gathered, sums.order, sums.flags.to_vec());
        let work = move |cpu: &CpuDevice| {
            let sums = BlockSums { gathered, order, flags: &flags };
            // SAFETY: as in `copy_in`.
            unsafe { cpu.decide(&sums, clip_norm, updates, decision) }
        };
        self.push(Stream::Compute, work)
    }

    unsafe fn update(
        &self,
        rule: &Arc<dyn Rule>,
        numbers: &StepNumbers,
        slice: &UpdateSlice,
        decision: DeviceSlice,
        fingerprint: DeviceSlice,
        first: bool,
    ) -> Result<()> {
        let (rule, numbers, slice) = (rule.clone(), *numbers, *slice);
        let work = move |cpu: &CpuDevice| {
            // SAFETY: as in `copy_in`.
            unsafe { cpu.update(&rule, &numbers, &slice, decision, fingerprint, first) }
        };
        self.push(Stream::Compute, work)
    }
}

/// A rank's way to others, on its device's communication stream.
struct LazyCommunicator {
    rank: usize,
    size: usize,
    inner: Shared<Box<dyn Communicator>>,
    streams: Shared<Streams>,
}

impl LazyCommunicator {
    fn push(&self, work: impl FnOnce(&mut dyn Communicator) -> Result<()> + 'static) -> Result<()> {
        let inner = self.inner.clone();
        let work = Box::new(move || work(&mut **inner.borrow_mut()));
        self.streams.borrow_mut().push(Stream::Communication, work)
    }
}

impl Communicator for LazyCommunicator {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn barrier(&mut self) -> Result<()> {
        self.push(|inner| inner.barrier())
    }

    unsafe fn broadcast(&mut self, root: usize, buffer: DeviceSlice) -> Result<()> {
        // SAFETY: the caller vouches for the buffer until the stream comes here.
        self.push(move |inner| unsafe { inner.broadcast(root, buffer) })
    }

    unsafe fn all_gather(&mut self, send: DeviceSlice, receive: &[DeviceSlice]) -> Result<()> {
        let receive = receive.to_vec();
        // SAFETY: as in `broadcast`.
        self.push(move |inner| unsafe { inner.all_gather(send, &receive) })
    }

    unsafe fn all_to_all(&mut self, send: &[DeviceSlice], receive: &[DeviceSlice]) -> Result<()> {
        let (send, receive) = (send.to_vec(), receive.to_vec());
        // SAFETY: as in `broadcast`.
        self.push(move |inner| unsafe { inner.all_to_all(&send, &receive) })
    }

    unsafe fn join(
        &mut self,
        tree: &JoinTree,
        dtype: DType,
        pieces: &[DeviceSlice],
        output: DeviceSlice,
    ) -> Result<()> {
        let (tree, pieces) = (*tree, pieces.to_vec());
        // SAFETY: as in `broadcast`.
        self.push(move |inner| unsafe { inner.join(&tree, dtype, &pieces, output) })
    }

    fn abort(&mut self, why: &str) {
        self.inner.borrow_mut().abort(why);
    }
}
