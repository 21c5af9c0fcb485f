//! A device as the one thread of its rank sees it: memory, and work in the order of streams.
//!
//! Duty: everything that a rank does with its memory besides collectives. Ownership: a device is
//! owned by the thread that opened it; it owns streams, events and scratch, never tensors.
//! Prohibitions: it decides nothing, and allocates nothing after [`Device::allocate`].
//!
//! Four streams: copies between host and device name theirs ([`Stream::CopyIn`] and
//! [`Stream::CopyOut`]: a GPU has an engine for each direction, and what goes out must not hold up
//! what comes in), other calls below put work on [`Stream::Compute`], a rank's [`Communicator`]
//! puts its own on [`Stream::Communication`]. Work of one stream runs in the order of the calls;
//! between streams there is only the order that [`Device::record`] and [`Device::wait`] make, and
//! host memory is read and written when a copy's turn comes. A device that computes at once (the
//! CPU) has finished a call when it returns, and needs events only to tell the time.
//!
//! Host memory: copies take any; those of a step take what [`Device::host_memory`] gave or
//! [`Device::pin`] was shown, which a device can reach by itself.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytemuck::{Pod, Zeroable};

use crate::collectives::Communicator;
use crate::cpu;
use crate::cuda;
use crate::cuda::find::Search;
use crate::error::Result;
use crate::graph::{Bindings, Program, RunContext};
use crate::memory::{Arena, ArenaPlan, DeviceSlice, HostBuffer, HostSlice};
use crate::ops::Stream;
use crate::update::{Rule, StepNumbers, UpdateSlice};

/// Streams of a device.
pub const STREAMS: usize = 4;

/// An event of a device, by number: below [`Events::all`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Event(pub usize);

/// How many events a device makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Events {
    /// All, with numbers from 0.
    pub all: usize,
    /// The last so many of them also tell the time.
    pub timed: usize,
}

impl Events {
    /// Whether an event tells the time.
    pub fn is_timed(self, event: Event) -> bool {
        (self.all - self.timed..self.all).contains(&event.0)
    }
}

/// Host memory that is pinned, until this is dropped.
pub type Pinned = Box<dyn Send>;

/// What a run reads from device memory, so that captured work can be run again with other values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
#[repr(C)]
pub struct RunArguments {
    /// Step, from 0.
    pub step: u64,
    /// Number of the first sample of the micro-batch within the run, from 0.
    pub first_sample: u64,
}

/// What all ranks conclude from the same gathered sums, in device memory.
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Decision {
    /// Global norm of the gradients.
    pub norm: f64,
    /// What gradients are multiplied by: at most 1.
    pub factor: f32,
    /// Why the update is not to be made, of [`NOT_FINITE`], [`OVERFLOW`] and [`HELD`]; 0 if it is.
    pub skip: u32,
    /// Updates made so far, this one included if it is made.
    pub updates: u64,
}

/// The norm is infinite or not a number.
pub const NOT_FINITE: u32 = 1;
/// A live extent overflowed on some rank.
pub const OVERFLOW: u32 = 2;
/// A step before it overflowed, and is to be repeated first.
pub const HELD: u32 = 4;

/// The sums of squares of all blocks, gathered.
#[derive(Debug, Clone, Copy)]
pub struct BlockSums<'a> {
    /// `f64`: of each rank its block sums, then one cell whose low word is its overflow flag.
    pub gathered: DeviceSlice,
    /// `i32`: by block, in block order, where its sum is.
    pub order: DeviceSlice,
    /// By rank: where its overflow cell is.
    pub flags: &'a [usize],
}

/// Memory and ordered work of one device.
///
/// # Safety
/// Methods that touch memory are unsafe. The caller vouches that slices lie in live memory of this
/// device, that outputs overlap no input, and that, in the order of streams and events, nobody else
/// touches them meanwhile. A step plan makes it so.
pub trait Device {
    /// Takes a rank's memory, zeroed, and makes its events. Called once.
    ///
    /// # Errors
    /// [`Error::Device`] when there is not enough.
    fn allocate(&self, plan: &ArenaPlan, events: Events) -> Result<Arena>;

    /// Takes host memory, zeroed and at a page's start, that copies of every device of this process
    /// reach without a detour: on a GPU, pinned. It may outlive the device, and be dropped on any
    /// thread. For the start of a run.
    ///
    /// # Errors
    /// [`Error::Device`] when there is not enough.
    fn host_memory(&self, bytes: usize) -> Result<HostBuffer>;

    /// Makes host memory that is there already, whole pages, such memory; of one range at a time
    /// only once in a process.
    ///
    /// # Errors
    /// [`Error::Device`] when the system refuses.
    ///
    /// # Safety
    /// The memory stays mapped until what is returned is dropped.
    unsafe fn pin(&self, memory: HostSlice) -> Result<Pinned>;

    /// Marks the place that a stream has been given work up to; an event that tells the time notes
    /// it when the stream passes there.
    ///
    /// # Errors
    /// [`Error::Device`], as of every call below, from this or earlier work.
    fn record(&self, event: Event, stream: Stream) -> Result<()>;

    /// Lets a stream go on only behind the last place marked by `event`, if there is one.
    ///
    /// # Errors
    /// See [`Self::record`].
    fn wait(&self, stream: Stream, event: Event) -> Result<()>;

    /// Whether the last place marked by `event` has been passed. Does not wait.
    ///
    /// # Errors
    /// See [`Self::record`].
    fn reached(&self, event: Event) -> Result<bool>;

    /// Waits until the last place marked by `event` has been passed.
    ///
    /// # Errors
    /// See [`Self::record`].
    fn synchronize(&self, event: Event) -> Result<()>;

    /// The time from when the last place marked by `from` was passed to when that of `to` was.
    ///
    /// # Errors
    /// [`Error::Device`] if one of them tells no time, has marked nothing or is not passed yet; see
    /// [`Self::record`].
    fn elapsed(&self, from: Event, to: Event) -> Result<Duration>;

    /// Waits until everything that any stream was given is done.
    ///
    /// # Errors
    /// See [`Self::record`].
    fn finish(&self) -> Result<()>;

    /// Copies host memory in when the stream comes to it.
    ///
    /// # Safety
    /// See the trait; the host memory stays as it is until then.
    ///
    /// # Errors
    /// See [`Self::record`].
    unsafe fn copy_in(&self, stream: Stream, from: HostSlice, to: DeviceSlice) -> Result<()>;

    /// Copies out to host memory when the stream comes to it.
    ///
    /// # Safety
    /// See the trait; nobody touches the host memory until then.
    ///
    /// # Errors
    /// See [`Self::record`].
    unsafe fn copy_out(&self, stream: Stream, from: DeviceSlice, to: HostSlice) -> Result<()>;

    /// Writes the arguments of runs, given by value, when the stream comes to it.
    ///
    /// # Safety
    /// See the trait.
    ///
    /// # Errors
    /// See [`Self::record`].
    unsafe fn set_arguments(
        &self,
        stream: Stream,
        arguments: RunArguments,
        to: DeviceSlice,
    ) -> Result<()>;

    /// Copies host memory in, behind everything that any stream was given, and waits for it.
    ///
    /// # Safety
    /// See the trait.
    ///
    /// # Errors
    /// See [`Self::record`].
    unsafe fn upload(&self, from: &[u8], to: DeviceSlice) -> Result<()> {
        self.finish()?;
        // SAFETY: the caller vouches for `to`; `from` is borrowed until the copy is done.
        unsafe { self.copy_in(Stream::Compute, HostSlice::of(from), to) }?;
        self.finish()
    }

    /// Copies out, behind everything that any stream was given, and waits for it.
    ///
    /// # Safety
    /// See the trait.
    ///
    /// # Errors
    /// See [`Self::record`].
    unsafe fn download(&self, from: DeviceSlice, to: &mut [u8]) -> Result<()> {
        self.finish()?;
        // SAFETY: the caller vouches for `from`; `to` is borrowed until the copy is done.
        unsafe { self.copy_out(Stream::Compute, from, HostSlice::of_mut(to)) }?;
        self.finish()
    }

    /// Copies within the device.
    ///
    /// # Safety
    /// See the trait.
    ///
    /// # Errors
    /// See [`Self::record`].
    unsafe fn copy(&self, from: DeviceSlice, to: DeviceSlice) -> Result<()>;

    /// Writes zeros.
    ///
    /// # Safety
    /// See the trait.
    ///
    /// # Errors
    /// See [`Self::record`].
    unsafe fn clear(&self, slice: DeviceSlice) -> Result<()>;

    /// Runs nodes of a program, in order. Nodes of [`Stream::Communication`] run there; whoever
    /// calls makes the streams wait for each other.
    ///
    /// # Safety
    /// See the trait; the bindings are the regions that the program was compiled for.
    ///
    /// # Errors
    /// See [`Self::record`]; [`Error::Collective`] from a node that meets other devices.
    unsafe fn run(
        &self,
        program: &Program,
        bindings: &Bindings<'_>,
        context: &RunContext<'_>,
        nodes: Range<usize>,
    ) -> Result<()>;

    /// `into += from`, both `f32`.
    ///
    /// # Safety
    /// See the trait.
    ///
    /// # Errors
    /// See [`Self::record`].
    unsafe fn add_into(&self, into: DeviceSlice, from: DeviceSlice) -> Result<()>;

    /// The sum of squares of each block of `block_elements` gradients (`f32`) into `sums` (`f64`).
    ///
    /// # Safety
    /// See the trait.
    ///
    /// # Errors
    /// See [`Self::record`].
    unsafe fn block_sums(
        &self,
        gradient: DeviceSlice,
        block_elements: usize,
        sums: DeviceSlice,
    ) -> Result<()>;

    /// Adds the sums in block order and concludes: `decision` holds a [`Decision`].
    ///
    /// `updates` is the number of updates made before, if the host knows how the step before went.
    /// If it does not, the decision that stands there says it; and if that one was not to update
    /// for [`OVERFLOW`] or [`HELD`], this one is [`HELD`]: what overflowed is repeated first.
    ///
    /// # Safety
    /// See the trait.
    ///
    /// # Errors
    /// See [`Self::record`].
    unsafe fn decide(
        &self,
        sums: &BlockSums<'_>,
        clip_norm: f64,
        updates: Option<u64>,
        decision: DeviceSlice,
    ) -> Result<()>;

    /// One step of a slice by a rule, unless the decision is not to; gradients are scaled by its
    /// factor, and its `updates` are the number of the step. The fingerprint of the new weights
    /// overwrites the `u64` in `fingerprint` if `first`, else it is added.
    ///
    /// # Safety
    /// See the trait.
    ///
    /// # Errors
    /// See [`Self::record`].
    unsafe fn update(
        &self,
        rule: &Arc<dyn Rule>,
        numbers: &StepNumbers,
        slice: &UpdateSlice,
        decision: DeviceSlice,
        fingerprint: DeviceSlice,
        first: bool,
    ) -> Result<()>;
}

/// A rank's device and its way to the other ranks.
pub type Opened = (Box<dyn Device>, Box<dyn Communicator>);

/// Opens the device of one rank; called on the thread that will own it.
pub type Open = Box<dyn FnOnce() -> Result<Opened> + Send>;

/// Kinds of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// This machine's cores; every rank has so many threads.
    Cpu {
        /// Threads of a rank.
        threads: usize,
    },
    /// One NVIDIA GPU for each rank.
    Cuda {
        /// What multiplies there.
        products: Products,
    },
}

/// What multiplies matrices on GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Products {
    /// cuBLASLt, where it offers a product; else a kernel of our own.
    Library,
    /// Kernels of our own.
    Own,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu { threads: 1 } => f.write_str("the CPU, one thread each"),
            Self::Cpu { threads } => write!(f, "the CPU, {threads} threads each"),
            Self::Cuda { .. } => f.write_str("CUDA, a GPU each"),
        }
    }
}

impl Backend {
    /// Its name in manifests: bits are not promised across backends.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu { .. } => "cpu",
            Self::Cuda { .. } => "cuda",
        }
    }

    /// The devices of `ranks` ranks that can meet; whoever waits for a peer longer than `timeout`
    /// gives up.
    ///
    /// # Errors
    /// [`Error::Device`] when this build or machine has no such devices.
    pub fn open(self, ranks: usize, timeout: Duration) -> Result<Vec<Open>> {
        match self {
            Self::Cpu { threads } => Ok(cpu::open(ranks, threads, timeout)),
            Self::Cuda { products } => cuda::device::open(Search::here(), ranks, timeout, products),
        }
    }
}
