//! A device whose kernels are emulated: every launch of a run, the ones that no op asks for too, in
//! host memory, each done when the call returns. Everything else is the CPU's.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::collectives::{Communicator, LocalGroup};
use crate::cpu::CpuDevice;
use crate::cuda::step::{self, StepKernel};
use crate::device::{BlockSums, Device, Event, Events, Open, Opened, Pinned, RunArguments};
use crate::emulator::{Schedule, Watched, run, run_step};
use crate::error::Result;
use crate::graph::{Bindings, Program, RunContext};
use crate::memory::{Arena, ArenaPlan, DeviceSlice, HostBuffer, HostSlice};
use crate::ops::Stream;
use crate::update::{Rule, StepNumbers, Stored, UpdateSlice};

/// How long a rank waits for itself.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Computes when it is asked, by kernels under one schedule.
pub struct EmulatedDevice {
    cpu: CpuDevice,
    schedule: Schedule,
    /// Of kernels over flat vectors at most, so that small ones are gone over in strides too.
    blocks_max: usize,
}

/// The device of a run of one rank.
pub fn open(schedule: Schedule) -> Open {
    Box::new(move || {
        let mut group = LocalGroup::new(1, TIMEOUT);
        let communicator: Box<dyn Communicator> = Box::new(group.remove(0));
        let device = EmulatedDevice::new(schedule, usize::MAX);
        Ok((Box::new(device) as Box<dyn Device>, communicator) as Opened)
    })
}

impl EmulatedDevice {
    /// Under a schedule, with at most so many blocks for a kernel over flat vectors.
    pub fn new(schedule: Schedule, blocks_max: usize) -> Self {
        Self { cpu: CpuDevice::new(1), schedule, blocks_max }
    }

    fn over_elements(&self, kernel: StepKernel, watched: &[Watched]) -> Result<()> {
        let kernel = StepKernel { blocks: kernel.blocks.min(self.blocks_max), ..kernel };
        self.step(&kernel, watched)
    }

    fn step(&self, kernel: &StepKernel, watched: &[Watched]) -> Result<()> {
        if kernel.blocks == 0 { Ok(()) } else { run_step(kernel, watched, &self.schedule) }
    }
}

/// Under every order, with two blocks for a kernel over flat vectors; none where nothing can be
/// emulated.
#[cfg(test)]
pub(crate) fn in_every_order() -> Vec<EmulatedDevice> {
    let schedules = crate::emulator::hold::schedules(false);
    let here = schedules.into_iter().filter(|_| crate::emulator::available());
    here.map(|schedule| EmulatedDevice::new(schedule, 2)).collect()
}

/// What a kernel only reads.
pub(crate) fn read(name: &'static str, slice: DeviceSlice) -> Watched {
    Watched { slice, name, writable: false, known: true }
}

/// What it writes, without reading what was there.
pub(crate) fn written(name: &'static str, slice: DeviceSlice) -> Watched {
    Watched { slice, name, writable: true, known: false }
}

/// What it reads and writes.
pub(crate) fn changed(name: &'static str, slice: DeviceSlice) -> Watched {
    Watched { slice, name, writable: true, known: true }
}

impl Device for EmulatedDevice {
    fn allocate(&self, plan: &ArenaPlan, events: Events) -> Result<Arena> {
        self.cpu.allocate(plan, events)
    }

    fn host_memory(&self, bytes: usize) -> Result<HostBuffer> {
        self.cpu.host_memory(bytes)
    }

    unsafe fn pin(&self, memory: HostSlice) -> Result<Pinned> {
        // SAFETY: the caller vouches for it.
        unsafe { self.cpu.pin(memory) }
    }

    fn record(&self, event: Event, stream: Stream) -> Result<()> {
        self.cpu.record(event, stream)
    }

    fn wait(&self, stream: Stream, event: Event) -> Result<()> {
        self.cpu.wait(stream, event)
    }

    fn reached(&self, event: Event) -> Result<bool> {
        self.cpu.reached(event)
    }

    fn synchronize(&self, event: Event) -> Result<()> {
        self.cpu.synchronize(event)
    }

    fn elapsed(&self, from: Event, to: Event) -> Result<Duration> {
        self.cpu.elapsed(from, to)
    }

    fn finish(&self) -> Result<()> {
        self.cpu.finish()
    }

    unsafe fn copy_in(&self, stream: Stream, from: HostSlice, to: DeviceSlice) -> Result<()> {
        // SAFETY: the caller vouches for both, as in the calls below.
        unsafe { self.cpu.copy_in(stream, from, to) }
    }

    unsafe fn copy_out(&self, stream: Stream, from: DeviceSlice, to: HostSlice) -> Result<()> {
        // SAFETY: as in `copy_in`.
        unsafe { self.cpu.copy_out(stream, from, to) }
    }

    unsafe fn set_arguments(
        &self,
        stream: Stream,
        arguments: RunArguments,
        to: DeviceSlice,
    ) -> Result<()> {
        // SAFETY: as in `copy_in`.
        unsafe { self.cpu.set_arguments(stream, arguments, to) }
    }

    unsafe fn copy(&self, from: DeviceSlice, to: DeviceSlice) -> Result<()> {
        // SAFETY: as in `copy_in`.
        unsafe { self.cpu.copy(from, to) }
    }

    unsafe fn clear(&self, slice: DeviceSlice) -> Result<()> {
        // SAFETY: as in `copy_in`.
        unsafe { self.cpu.clear(slice) }
    }

    unsafe fn run(
        &self,
        program: &Program,
        bindings: &Bindings<'_>,
        context: &RunContext<'_>,
        nodes: Range<usize>,
    ) -> Result<()> {
        // SAFETY: as in `copy_in`.
        unsafe { run(program, bindings, context, nodes, &self.schedule) }.map(|_| ())
    }

    unsafe fn add_into(&self, into: DeviceSlice, from: DeviceSlice) -> Result<()> {
        self.over_elements(step::add_into(into, from), &[changed("into", into), read("from", from)])
    }

    unsafe fn block_sums(
        &self,
        gradient: DeviceSlice,
        block_elements: usize,
        sums: DeviceSlice,
    ) -> Result<()> {
        let kernel = step::block_sums(gradient, block_elements, sums);
        self.step(&kernel, &[read("gradient", gradient), written("sums", sums)])
    }

    unsafe fn decide(
        &self,
        sums: &BlockSums<'_>,
        clip_norm: f64,
        updates: Option<u64>,
        decision: DeviceSlice,
    ) -> Result<()> {
        let kernel = step::decide(sums, clip_norm, updates, decision);
        let watched = [
            read("gathered", sums.gathered),
            read("order", sums.order),
            changed("decision", decision),
        ];
        self.step(&kernel, &watched)
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
        let mut watched = vec![
            changed("weights", slice.weights),
            read("gradient", slice.gradient),
            read("decision", decision),
            changed("fingerprint", fingerprint),
        ];
        watched.extend(slice.rounded.map(|(_, slice)| written("rounded", slice)));
        for stored in slice.states {
            match stored {
                Stored::None => {}
                Stored::F32(values) | Stored::Bf16(values) => {
                    watched.push(changed("state", values));
                }
                Stored::Blocks8 { codes, scales } => {
                    watched.extend([changed("codes", codes), changed("scales", scales)]);
                }
            }
        }
        for kernel in step::update(&**rule, numbers, slice, decision, fingerprint, first)? {
            self.over_elements(kernel, &watched)?;
        }
        Ok(())
    }
}
