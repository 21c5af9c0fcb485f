//! A GPU as a [`Device`]: every call puts work on a stream and returns.
//!
//! Its errors are typed: too little memory, a context that is unusable from now on, a device that
//! is gone. They may come from work that was given earlier.

use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::sys::CUevent;

use crate::collectives::peer::Peer;
use crate::collectives::{Communicator, rendezvous};
use crate::cpu::CpuDevice;
use crate::cuda::context::address;
use crate::cuda::driver::{Driver, ranks_max};
use crate::cuda::find::Search;
use crate::cuda::gpu::Gpu;
use crate::cuda::host::Host;
use crate::cuda::step::{self, StepKernel};
use crate::device::{
    BlockSums, Device, Event, Events, Open, Opened, Pinned, Products, RunArguments,
};
use crate::error::{Error, Result};
use crate::graph::{Bindings, Program, RunContext, Target};
use crate::memory::{Arena, ArenaPlan, DeviceSlice, HostBuffer, HostSlice, Span};
use crate::operands::Operands;
use crate::ops::Stream;
use crate::update::{Rule, StepNumbers, UpdateSlice};

#[cfg(test)]
mod tests;

/// One GPU, and the events that a run asks for.
pub(crate) struct CudaDevice {
    gpu: Arc<Gpu>,
    /// And whether it tells the time.
    events: OnceCell<Vec<(CUevent, bool)>>,
}

/// The devices of `ranks` ranks, a GPU each; whoever waits for a peer longer than `timeout` gives
/// up.
pub(crate) fn open(
    search: Search,
    ranks: usize,
    timeout: Duration,
    products: Products,
) -> Result<Vec<Open>> {
    let driver = Driver::open(&search)?;
    let cards = driver.cards()?.len();
    if ranks > ranks_max(cards) {
        let what = format!("{ranks} ranks need a GPU each, and the driver shows {cards}");
        return Err(Error::Device(what));
    }
    let members = rendezvous::group(Peer::group(ranks), timeout).into_iter().enumerate();
    let one = |(ordinal, mut member): (usize, rendezvous::Member<Peer>)| {
        let (driver, search) = (driver.clone(), search.clone());
        let open = move || {
            let gpu = Arc::new(Gpu::open(driver, search, ordinal % cards, products)?);
            member.carrier.open(gpu.clone())?;
            let device = CudaDevice { gpu, events: OnceCell::new() };
            let communicator: Box<dyn Communicator> = Box::new(member);
            Ok((Box::new(device) as Box<dyn Device>, communicator) as Opened)
        };
        Box::new(open) as Open
    };
    Ok(members.map(one).collect())
}

impl CudaDevice {
    /// The first GPU, of one rank that meets nobody.
    ///
    /// # Errors
    /// As of [`open`].
    pub(crate) fn alone(search: Search, products: Products) -> Result<Self> {
        let gpu = Gpu::open(Driver::open(&search)?, search, 0, products)?;
        Ok(Self { gpu: Arc::new(gpu), events: OnceCell::new() })
    }

    /// Launches a kernel that no op asks for, where there is a GPU to run it.
    ///
    /// # Safety
    /// Of [`Gpu::step`].
    pub(crate) unsafe fn launch(&self, kernel: &StepKernel) -> Result<()> {
        // SAFETY: the caller vouches for it.
        unsafe { self.step(std::slice::from_ref(kernel), |_: &CpuDevice| Ok(())) }
    }

    fn check(&self, call: &str, status: u32) -> Result<()> {
        self.gpu.context.driver.check(call, status)
    }

    fn event(&self, event: Event) -> (CUevent, bool) {
        self.events.get().expect("events are made with the memory")[event.0]
    }

    /// What earlier work of the host left, on a stand-in: as a context's error, in every call.
    fn worked(&self) -> Result<()> {
        self.gpu.host.as_ref().map_or(Ok(()), Host::failure)
    }

    /// Kernels that no op asks for, on the stream of compute.
    ///
    /// # Safety
    /// Of [`Gpu::step`].
    unsafe fn step(
        &self,
        kernels: &[StepKernel],
        on_a_cpu: impl FnOnce(&CpuDevice) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        // SAFETY: the caller vouches for it.
        unsafe { self.gpu.step(Stream::Compute, kernels, on_a_cpu) }
    }
}

impl Drop for CudaDevice {
    fn drop(&mut self) {
        for (event, _) in self.events.take().unwrap_or_default() {
            self.gpu.context.destroy(event);
        }
    }
}

impl Device for CudaDevice {
    fn allocate(&self, plan: &ArenaPlan, events: Events) -> Result<Arena> {
        let event = |number| {
            let timed = events.is_timed(Event(number));
            self.gpu.context.event(timed).map(|event| (event, timed))
        };
        let made = (0..events.all).map(event).collect::<Result<_>>()?;
        drop(self.events.set(made));
        let (base, memory) = self.gpu.context.allocate(plan.bytes())?;
        // SAFETY: so many bytes were just allocated, and are freed with `memory`.
        let arena = unsafe { Arena::new(base, plan.bytes(), memory) };
        let whole = arena.slice(Span { offset: 0, bytes: plan.bytes() });
        // SAFETY: nobody else has it yet.
        unsafe { self.clear(whole) }?;
        self.finish()?;
        Ok(arena)
    }

    fn host_memory(&self, bytes: usize) -> Result<HostBuffer> {
        self.gpu.context.host_memory(bytes)
    }

    unsafe fn pin(&self, memory: HostSlice) -> Result<Pinned> {
        // SAFETY: the caller vouches for it.
        unsafe { self.gpu.context.pin(memory) }
    }

    fn record(&self, event: Event, stream: Stream) -> Result<()> {
        self.gpu.context.record(self.event(event).0, stream)
    }

    fn wait(&self, stream: Stream, event: Event) -> Result<()> {
        self.gpu.context.wait(stream, self.event(event).0)
    }

    fn reached(&self, event: Event) -> Result<bool> {
        // SAFETY: it is alive as long as `self`.
        let status =
            unsafe { (self.gpu.context.driver.functions.event_query)(self.event(event).0) };
        let ready = self.gpu.context.driver.is_ready("cuEventQuery", status)?;
        self.worked().map(|()| ready)
    }

    fn synchronize(&self, event: Event) -> Result<()> {
        // SAFETY: it is alive as long as `self`.
        let status =
            unsafe { (self.gpu.context.driver.functions.event_synchronize)(self.event(event).0) };
        self.check("cuEventSynchronize", status)?;
        self.worked()
    }

    fn elapsed(&self, from: Event, to: Event) -> Result<Duration> {
        for event in [from, to] {
            if !self.event(event).1 {
                return Err(Error::Device(format!("event {} tells no time", event.0)));
            }
        }
        let (from, to, mut milliseconds) = (self.event(from).0, self.event(to).0, 0.0f32);
        let elapsed = self.gpu.context.driver.functions.event_elapsed;
        // SAFETY: both are alive as long as `self`; writes a number that outlives the call.
        let status = unsafe { elapsed(&raw mut milliseconds, from, to) };
        self.check("cuEventElapsedTime", status)?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
    }

    fn finish(&self) -> Result<()> {
        self.gpu.context.synchronize()?;
        self.worked()
    }

    unsafe fn copy_in(&self, stream: Stream, from: HostSlice, to: DeviceSlice) -> Result<()> {
        let (stream, copy) =
            (self.gpu.context.stream(stream), self.gpu.context.driver.functions.copy_in);
        let host = from.pointer().cast_const().cast();
        // SAFETY: the caller vouches for both until the stream comes here.
        let status = unsafe { copy(address(to), host, from.bytes(), stream) };
        self.check("cuMemcpyHtoDAsync", status)
    }

    unsafe fn copy_out(&self, stream: Stream, from: DeviceSlice, to: HostSlice) -> Result<()> {
        let (stream, copy) =
            (self.gpu.context.stream(stream), self.gpu.context.driver.functions.copy_out);
        // SAFETY: as in `copy_in`.
        let status = unsafe { copy(to.pointer().cast(), address(from), to.bytes(), stream) };
        self.check("cuMemcpyDtoHAsync", status)
    }

    unsafe fn set_arguments(
        &self,
        stream: Stream,
        arguments: RunArguments,
        to: DeviceSlice,
    ) -> Result<()> {
        let (stream, write) =
            (self.gpu.context.stream(stream), self.gpu.context.driver.functions.write);
        // By value: there is no host memory that would have to stay.
        for (at, word) in [arguments.step, arguments.first_sample].into_iter().enumerate() {
            let to = address(to.part(at * size_of::<u64>(), size_of::<u64>()));
            // SAFETY: the caller vouches for `to`.
            let status = unsafe { write(stream, to, word, 0) };
            self.check("cuStreamWriteValue64", status)?;
        }
        Ok(())
    }

    unsafe fn copy(&self, from: DeviceSlice, to: DeviceSlice) -> Result<()> {
        // SAFETY: the caller vouches for both.
        unsafe { self.gpu.context.copy(Stream::Compute, from, to) }
    }

    unsafe fn clear(&self, slice: DeviceSlice) -> Result<()> {
        // SAFETY: the caller vouches for it.
        unsafe { self.gpu.clear(slice) }
    }

    unsafe fn run(
        &self,
        program: &Program,
        bindings: &Bindings<'_>,
        context: &RunContext<'_>,
        nodes: Range<usize>,
    ) -> Result<()> {
        // A stand-in computes whatever a CPU does.
        let fits = program.target != Target::Cpu || self.gpu.host.is_some();
        assert!(fits, "program {} has another target", program.name);
        for (number, node) in nodes.clone().zip(program.planned(nodes)) {
            if node.op.stream() != Stream::Compute {
                let what = format!("{} meets other devices: not on GPUs yet", node.path);
                return Err(Error::Plan(what));
            }
            let operands = Operands { program, node, bindings, context };
            // SAFETY: the caller vouches for the regions.
            unsafe { self.gpu.node(&operands) }?;
            if let Some(host) = &self.gpu.host {
                // SAFETY: as above, until the stream has passed.
                unsafe { host.push_node(&self.gpu.context, program, bindings, context, number) }?;
            }
        }
        Ok(())
    }

    unsafe fn add_into(&self, into: DeviceSlice, from: DeviceSlice) -> Result<()> {
        // SAFETY: the caller vouches for both until the stream comes here.
        let on_a_cpu = move |cpu: &CpuDevice| unsafe { cpu.add_into(into, from) };
        // SAFETY: as above.
        unsafe { self.step(&[step::add_into(into, from)], on_a_cpu) }
    }

    unsafe fn block_sums(
        &self,
        gradient: DeviceSlice,
        block_elements: usize,
        sums: DeviceSlice,
    ) -> Result<()> {
        // SAFETY: as in `add_into`.
        let on_a_cpu =
            move |cpu: &CpuDevice| unsafe { cpu.block_sums(gradient, block_elements, sums) };
        // SAFETY: as in `add_into`.
        unsafe { self.step(&[step::block_sums(gradient, block_elements, sums)], on_a_cpu) }
    }

    unsafe fn decide(
        &self,
        sums: &BlockSums<'_>,
        clip_norm: f64,
        updates: Option<u64>,
        decision: DeviceSlice,
    ) -> Result<()> {
        let kernel = step::decide(sums, clip_norm, updates, decision);
        let (gathered, order, flags) = (sums.gathered, sums.order, sums.flags.to_vec());
        let on_a_cpu = move |cpu: &CpuDevice| {
            let sums = BlockSums { gathered, order, flags: &flags };
            // SAFETY: as in `add_into`.
            unsafe { cpu.decide(&sums, clip_norm, updates, decision) }
        };
        // SAFETY: as in `add_into`.
        unsafe { self.step(&[kernel], on_a_cpu) }
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
        let kernels = step::update(&**rule, numbers, slice, decision, fingerprint, first)?;
        let (rule, numbers, slice) = (rule.clone(), *numbers, *slice);
        let on_a_cpu = move |cpu: &CpuDevice| {
            // SAFETY: as in `add_into`.
            unsafe { cpu.update(&rule, &numbers, &slice, decision, fingerprint, first) }
        };
        // SAFETY: as in `add_into`.
        unsafe { self.step(&kernels, on_a_cpu) }
    }
}
