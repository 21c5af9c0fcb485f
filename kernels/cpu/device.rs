//! The CPU as a [`Device`]: every call is done when it returns, so events only tell the time.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytemuck::Pod;
use half::{bf16, f16};

use crate::collectives::{Communicator, LocalGroup};
use crate::cpu::pool::Pool;
use crate::cpu::update::update;
use crate::cpu::{CpuDevice, CpuRun};
use crate::device::{
    BlockSums, Decision, Device, Event, Events, HELD, NOT_FINITE, OVERFLOW, Open, Opened, Pinned,
    RunArguments,
};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Bindings, Program, RunContext, Target};
use crate::memory::{Arena, ArenaPlan, DeviceSlice, HostBuffer, HostSlice};
use crate::operands::Operands;
use crate::ops::Stream;
use crate::ops::fold::add_into;
use crate::ops::global_norm::{block_sums, clip_factor};
use crate::update::{Rule, StepNumbers, UpdateSlice};

/// Elements that a thread rounds at a time.
const CHUNK: usize = 32 * 1024;

/// The devices of `ranks` ranks on this machine's cores.
pub(crate) fn open(ranks: usize, threads: usize, timeout: Duration) -> Vec<Open> {
    let one = |communicator| {
        let open = move || {
            let communicator: Box<dyn Communicator> = Box::new(communicator);
            Ok((Box::new(CpuDevice::new(threads)) as Box<dyn Device>, communicator) as Opened)
        };
        Box::new(open) as Open
    };
    LocalGroup::new(ranks, timeout).into_iter().map(one).collect()
}

/// When events that tell the time were passed, in nanoseconds since their making; 0: never.
#[derive(Debug, Default)]
pub(super) struct EventClock(OnceLock<(Instant, Events, Vec<AtomicU64>)>);

impl EventClock {
    fn make(&self, events: Events) {
        let never = || (0..events.timed).map(|_| AtomicU64::new(0)).collect();
        self.0.get_or_init(|| (Instant::now(), events, never()));
    }

    fn cell(&self, event: Event) -> Option<(&Instant, &AtomicU64)> {
        let (start, events, cells) = self.0.get()?;
        let first = events.all - events.timed;
        events.is_timed(event).then(|| (start, &cells[event.0 - first]))
    }

    fn pass(&self, event: Event) {
        if let Some((start, cell)) = self.cell(event) {
            cell.store(start.elapsed().as_nanos() as u64 + 1, Ordering::Relaxed);
        }
    }

    fn passed(&self, event: Event) -> Result<u64> {
        let at = self.cell(event).map_or(0, |(_, cell)| cell.load(Ordering::Relaxed));
        let never = || Error::Device(format!("event {} tells no time", event.0));
        (at > 0).then_some(at).ok_or_else(never)
    }
}

impl Device for CpuDevice {
    fn allocate(&self, plan: &ArenaPlan, events: Events) -> Result<Arena> {
        self.clock.make(events);
        Arena::in_host_memory(plan)
    }

    fn host_memory(&self, bytes: usize) -> Result<HostBuffer> {
        HostBuffer::plain(bytes)
    }

    unsafe fn pin(&self, _memory: HostSlice) -> Result<Pinned> {
        Ok(Box::new(()))
    }

    fn record(&self, event: Event, _stream: Stream) -> Result<()> {
        self.clock.pass(event);
        Ok(())
    }

    fn wait(&self, _stream: Stream, _event: Event) -> Result<()> {
        Ok(())
    }

    fn reached(&self, _event: Event) -> Result<bool> {
        Ok(true)
    }

    fn synchronize(&self, _event: Event) -> Result<()> {
        Ok(())
    }

    fn elapsed(&self, from: Event, to: Event) -> Result<Duration> {
        let (from, to) = (self.clock.passed(from)?, self.clock.passed(to)?);
        Ok(Duration::from_nanos(to.saturating_sub(from)))
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }

    unsafe fn copy_in(&self, _stream: Stream, from: HostSlice, to: DeviceSlice) -> Result<()> {
        // SAFETY: the caller vouches for both.
        unsafe { to.as_mut_slice::<u8>().copy_from_slice(from.as_slice()) };
        Ok(())
    }

    unsafe fn copy_out(&self, _stream: Stream, from: DeviceSlice, to: HostSlice) -> Result<()> {
        // SAFETY: the caller vouches for both.
        unsafe { to.as_mut_slice().copy_from_slice(from.as_slice()) };
        Ok(())
    }

    unsafe fn set_arguments(
        &self,
        _stream: Stream,
        arguments: RunArguments,
        to: DeviceSlice,
    ) -> Result<()> {
        // SAFETY: the caller vouches for `to`.
        let to = unsafe { to.as_mut_slice::<RunArguments>() };
        to[0] = arguments;
        Ok(())
    }

    unsafe fn copy(&self, from: DeviceSlice, to: DeviceSlice) -> Result<()> {
        // SAFETY: the caller vouches for both, and that they do not overlap.
        unsafe { to.as_mut_slice::<u8>().copy_from_slice(from.as_slice()) };
        Ok(())
    }

    unsafe fn clear(&self, slice: DeviceSlice) -> Result<()> {
        // SAFETY: the caller vouches for it.
        unsafe { slice.as_mut_slice::<u8>() }.fill(0);
        Ok(())
    }

    unsafe fn run(
        &self,
        program: &Program,
        bindings: &Bindings<'_>,
        context: &RunContext<'_>,
        nodes: Range<usize>,
    ) -> Result<()> {
        assert_eq!(program.target, Target::Cpu, "program {} has another target", program.name);
        for node in program.planned(nodes) {
            let operands = Operands { program, node, bindings, context };
            CpuRun::execute(operands, self)?;
        }
        Ok(())
    }

    unsafe fn add_into(&self, into: DeviceSlice, from: DeviceSlice) -> Result<()> {
        // SAFETY: the caller vouches for both, and that they do not overlap.
        let (into, from) = unsafe { (into.as_mut_slice(), from.as_slice()) };
        add_into(self, into, from);
        Ok(())
    }

    unsafe fn block_sums(
        &self,
        gradient: DeviceSlice,
        block_elements: usize,
        sums: DeviceSlice,
    ) -> Result<()> {
        // SAFETY: the caller vouches for both, and that they do not overlap.
        let (gradient, sums) = unsafe { (gradient.as_slice(), sums.as_mut_slice()) };
        block_sums(self, gradient, block_elements, sums);
        Ok(())
    }

    unsafe fn decide(
        &self,
        sums: &BlockSums<'_>,
        clip_norm: f64,
        updates: Option<u64>,
        decision: DeviceSlice,
    ) -> Result<()> {
        // SAFETY: the caller vouches for all three, and that they do not overlap.
        let (gathered, order, decision) = unsafe {
            let decision = decision.as_mut_slice::<Decision>();
            (sums.gathered.as_slice::<f64>(), sums.order.as_slice::<i32>(), decision)
        };
        let norm = clip_factor(order.iter().map(|&at| gathered[at as usize]), clip_norm);
        let overflow = sums.flags.iter().any(|&at| gathered[at].to_bits() as u32 != 0);
        let previous = decision[0];
        let held = updates.is_none() && previous.skip & (OVERFLOW | HELD) != 0;
        let skip = NOT_FINITE * u32::from(!norm.finite)
            + OVERFLOW * u32::from(overflow)
            + HELD * u32::from(held);
        let before = updates.unwrap_or(previous.updates);
        decision[0] = Decision {
            norm: norm.norm,
            factor: norm.factor,
            skip,
            updates: before + u64::from(skip == 0),
        };
        Ok(())
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
        // SAFETY: the caller vouches for both.
        let (decision, total) =
            unsafe { (decision.as_slice::<Decision>()[0], fingerprint.as_mut_slice::<u64>()) };
        if decision.skip != 0 {
            return Ok(());
        }
        // SAFETY: the caller vouches for all vectors, and that they do not overlap.
        let sum = unsafe { update(self, &**rule, numbers, &decision, slice) };
        total[0] = if first { sum } else { total[0].wrapping_add(sum) };
        if let Some((dtype, rounded)) = slice.rounded {
            // SAFETY: as above; the update is done with the weights.
            unsafe { round(&self.pool, dtype, slice.weights.as_slice(), rounded) }?;
        }
        Ok(())
    }
}

/// Rounds `weights` to nearest, ties to even.
///
/// # Safety
/// Nobody else uses `rounded`, which is live host memory of as many elements.
unsafe fn round(pool: &Pool, dtype: DType, weights: &[f32], rounded: DeviceSlice) -> Result<()> {
    fn all<T: Pod + Send>(pool: &Pool, from: &[f32], to: &mut [T], one: fn(f32) -> T) {
        pool.map_chunks(to, CHUNK, |chunk, to| {
            let from = &from[chunk * CHUNK..][..to.len()];
            to.iter_mut().zip(from).for_each(|(to, &from)| *to = one(from));
        });
    }
    // SAFETY: the caller vouches for `rounded`.
    unsafe {
        match dtype {
            DType::Bf16 => all(pool, weights, rounded.as_mut_slice::<bf16>(), bf16::from_f32),
            DType::F16 => all(pool, weights, rounded.as_mut_slice::<f16>(), f16::from_f32),
            _ => return Err(Error::Plan(format!("masters of {dtype} parameters"))),
        }
    }
    Ok(())
}
