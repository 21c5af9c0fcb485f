//! In the emulator's place: a GPU of this machine, where [`SETTING`] asks for it. The same tests
//! hold the same launches against the CPU's runs, by the driver that is really there.
//!
//! Their memory is the host's: each range is copied to the GPU before a launch, and back behind it.

use std::cell::OnceCell;
use std::ops::Range;

use crate::cuda::device::CudaDevice;
use crate::cuda::find::Search;
use crate::cuda::step::StepKernel;
use crate::device::{Device, Events, Products};
use crate::emulator::Watched;
use crate::error::Result;
use crate::graph::{Bindings, Program, RunContext};
use crate::memory::{Arena, ArenaPlan, DeviceSlice, HostSlice, Span};
use crate::operands::Value;
use crate::ops::Stream;

/// Where this is set, tests of kernels run them on the first GPU.
pub const SETTING: &str = "OCTET_TEST_GPU";

/// Whether cuBLASLt multiplies there, as the setting says by "library".
pub(super) fn multiplies_by_library() -> bool {
    std::env::var(SETTING).is_ok_and(|how| how == "library")
}

/// Whether kernels run on a GPU.
pub(super) fn asked() -> bool {
    std::env::var_os(SETTING).is_some()
}

/// This thread's device, if one is asked for.
///
/// # Panics
/// If it cannot be had.
pub(super) fn device() -> Option<&'static CudaDevice> {
    thread_local! {
        // Never closed: a thread that ends has its driver no more.
        static DEVICE: OnceCell<&'static CudaDevice> = const { OnceCell::new() };
    }
    let open = || -> &'static CudaDevice {
        let products = if multiplies_by_library() { Products::Library } else { Products::Own };
        let opened = CudaDevice::alone(Search::here(), products);
        Box::leak(Box::new(opened.unwrap_or_else(|error| panic!("{SETTING} is set: {error}"))))
    };
    asked().then(|| DEVICE.with(|device| *device.get_or_init(open)))
}

/// Ranges of host memory with their copies on a GPU, an allocation each: whoever watches accesses
/// there sees where one ends.
struct Mirror {
    device: &'static CudaDevice,
    ranges: Vec<(DeviceSlice, Arena)>,
}

fn span(slice: DeviceSlice) -> Range<usize> {
    let start = slice.pointer() as usize;
    start..start + slice.bytes()
}

impl Mirror {
    fn new(device: &'static CudaDevice, mut slices: Vec<DeviceSlice>) -> Result<Self> {
        slices.retain(|slice| slice.bytes() > 0);
        slices.sort_by_key(|slice| span(*slice).start);
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for slice in slices.into_iter().map(span) {
            match ranges.last_mut() {
                Some(last) if slice.start < last.end => last.end = last.end.max(slice.end),
                _ => ranges.push(slice),
            }
        }
        let there = ranges.into_iter().map(|range| {
            let bytes = range.len();
            // SAFETY: ranges that overlap are of one allocation, which the test has.
            let host = unsafe { std::slice::from_raw_parts_mut(range.start as *mut u8, bytes) };
            let host = DeviceSlice::from_host(host);
            let mut plan = ArenaPlan::new();
            plan.reserve("range", bytes);
            let arena = device.allocate(&plan, Events { all: 0, timed: 0 })?;
            // SAFETY: both are alive until the copy is waited for, which is below.
            unsafe { device.copy_in(Stream::Compute, HostSlice::at(host), whole(&arena, bytes)) }?;
            Ok((host, arena))
        });
        let ranges = there.collect::<Result<_>>()?;
        device.finish()?;
        Ok(Self { device, ranges })
    }

    /// Where a part of a range is on the GPU; what is empty is nowhere.
    fn slice(&self, host: DeviceSlice) -> DeviceSlice {
        let wanted = span(host);
        let within = |of: DeviceSlice| span(of).contains(&wanted.start);
        match self.ranges.iter().find(|(of, _)| within(*of)) {
            Some((of, arena)) if !wanted.is_empty() => {
                let offset = wanted.start - span(*of).start;
                arena.slice(Span { offset, bytes: wanted.len() })
            }
            _ => host,
        }
    }

    /// What the address of a host's byte is on the GPU; any other number is itself.
    fn word(&self, word: u64) -> u64 {
        let at = usize::try_from(word).expect("words of 64 bits");
        let range = self.ranges.iter().find(|(host, _)| span(*host).contains(&at));
        range.map_or(word, |(host, arena)| {
            let start = arena.slice(Span { offset: 0, bytes: 0 }).pointer() as u64;
            start + (at - span(*host).start) as u64
        })
    }

    /// Waits, and copies everything back.
    fn back(self) -> Result<()> {
        for (host, arena) in &self.ranges {
            let (from, to) = (whole(arena, host.bytes()), HostSlice::at(*host));
            // SAFETY: as in `new`.
            unsafe { self.device.copy_out(Stream::Compute, from, to) }?;
        }
        self.device.finish()
    }
}

fn whole(arena: &Arena, bytes: usize) -> DeviceSlice {
    arena.slice(Span { offset: 0, bytes })
}

/// Runs nodes of a program in host memory by the kernels of a GPU.
///
/// # Safety
/// As of [`super::run`].
///
/// # Errors
/// Those of the device.
pub(super) unsafe fn run(
    device: &'static CudaDevice,
    program: &Program,
    bindings: &Bindings<'_>,
    context: &RunContext<'_>,
    nodes: Range<usize>,
) -> Result<()> {
    let Bindings { parameters, gradients, states, step, input, .. } = *bindings;
    let Bindings { activations, overflow, arguments, .. } = *bindings;
    let rest = [states, step, input, activations, overflow, arguments];
    let all = [parameters, gradients, &rest].concat();
    let mirror = Mirror::new(device, all)?;
    let of = |slices: &[DeviceSlice]| -> Vec<DeviceSlice> {
        slices.iter().map(|slice| mirror.slice(*slice)).collect()
    };
    let (parameters, gradients) = (of(parameters), of(gradients));
    let (mut plan, bytes) = (ArenaPlan::new(), program.target.library_bytes());
    plan.reserve("workspace of libraries", bytes);
    let libraries = device.allocate(&plan, Events { all: 0, timed: 0 })?;
    let there = Bindings {
        parameters: &parameters,
        gradients: &gradients,
        states: mirror.slice(states),
        step: mirror.slice(step),
        input: mirror.slice(input),
        activations: mirror.slice(activations),
        libraries: whole(&libraries, bytes),
        overflow: mirror.slice(overflow),
        arguments: mirror.slice(arguments),
    };
    // SAFETY: the copies are this call's own, and are waited for.
    unsafe { device.run(program, &there, context, nodes) }?;
    mirror.back()
}

/// Runs a kernel that no op asks for on a GPU.
///
/// # Errors
/// Those of the device.
pub(super) fn run_step(
    device: &'static CudaDevice,
    kernel: &StepKernel,
    watched: &[Watched],
) -> Result<()> {
    let mirror = Mirror::new(device, watched.iter().map(|watched| watched.slice).collect())?;
    let value = |value: &Value| match value {
        Value::Address(Some(slice)) => Value::Address(Some(mirror.slice(*slice))),
        other => *other,
    };
    let kernel = StepKernel {
        values: kernel.values.iter().map(value).collect(),
        table: kernel.table.iter().map(|word| mirror.word(*word)).collect(),
        ..kernel.clone()
    };
    // SAFETY: its addresses are the copies', which are waited for.
    unsafe { device.launch(&kernel) }?;
    mirror.back()
}
