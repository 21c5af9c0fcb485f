//! One GPU as this process has it: its context, a stream for each kind of work, and its memory.
//!
//! Ownership: what is made here is freed by dropping it, on whichever thread, which has its own
//! context back afterwards; memory keeps the context alive. A context is current on the thread that
//! opened it.

use std::ffi::{c_int, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use cudarc::driver::sys::{CUcontext, CUdevice, CUdeviceptr, CUevent, CUstream};

use crate::cuda::driver::{Card, Driver};
use crate::device::STREAMS;
use crate::error::{Error, Result};
use crate::memory::{DeviceSlice, HostBuffer, HostSlice};
use crate::ops::Stream;

/// `CU_STREAM_NON_BLOCKING`: no order with the stream that is there by default.
const NON_BLOCKING: u32 = 1;
/// `CU_EVENT_DISABLE_TIMING`: an event that tells no time is cheaper.
const NO_TIME: u32 = 2;
/// `CU_MEMHOSTALLOC_PORTABLE`, `CU_MEMHOSTREGISTER_PORTABLE`: pinned for every context. Not
/// write-combined, which would make the host's reads slow.
const PORTABLE: u32 = 1;

/// A context with its streams.
pub(crate) struct Context {
    pub(crate) driver: Driver,
    /// What it is a context of.
    pub(crate) card: Card,
    device: CUdevice,
    context: CUcontext,
    streams: [CUstream; STREAMS],
}

// SAFETY: handles of the driver, which may be used by any thread.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Of the GPU of that number.
    pub(crate) fn open(driver: Driver, ordinal: usize) -> Result<Arc<Self>> {
        let ordinal = ordinal as c_int;
        let (card, mut device, mut context) = (driver.card(ordinal)?, 0, null_mut());
        // SAFETY: writes one number that lives longer than the call.
        let status = unsafe { (driver.functions.device)(&raw mut device, ordinal) };
        driver.check("cuDeviceGet", status)?;
        // SAFETY: writes one handle that lives longer than the call.
        let status = unsafe { (driver.functions.retain)(&raw mut context, device) };
        driver.check("cuDevicePrimaryCtxRetain", status)?;
        let streams = [null_mut(); STREAMS];
        let mut this = Self { driver, card, device, context, streams };
        this.make_current()?;
        for stream in 0..STREAMS {
            // The lower, the sooner: others wait for what is communicated.
            let priority = if stream == Stream::Communication as usize { -1 } else { 0 };
            let create = this.driver.functions.stream_create;
            // SAFETY: writes one handle that lives longer than the call.
            let status = unsafe { create(&raw mut this.streams[stream], NON_BLOCKING, priority) };
            this.driver.check("cuStreamCreateWithPriority", status)?;
        }
        Ok(Arc::new(this))
    }

    /// Runs something in this context, on a thread that may have another. A context that is broken
    /// is gone with its process: there is nobody to tell.
    fn inside<R>(&self, run: impl FnOnce() -> R) -> R {
        // SAFETY: the context is retained as long as `self`; what is pushed is popped below.
        let pushed = unsafe { (self.driver.functions.push)(self.context) };
        let result = run();
        if pushed == 0 {
            let mut popped = null_mut();
            // SAFETY: writes one handle that lives longer than the call.
            unsafe { (self.driver.functions.pop)(&raw mut popped) };
        }
        result
    }

    /// Makes it the context of this thread.
    fn make_current(&self) -> Result<()> {
        // SAFETY: the context is retained as long as `self`.
        let status = unsafe { (self.driver.functions.set_current)(self.context) };
        self.driver.check("cuCtxSetCurrent", status)
    }

    pub(crate) fn stream(&self, stream: Stream) -> CUstream {
        self.streams[stream as usize]
    }

    /// Waits for all streams.
    pub(crate) fn synchronize(&self) -> Result<()> {
        // SAFETY: the thread has this context.
        let status = unsafe { (self.driver.functions.synchronize)() };
        self.driver.check("cuCtxSynchronize", status)
    }

    /// Copies within the device when the stream comes to it.
    ///
    /// # Safety
    /// Of [`crate::device::Device::copy`].
    pub(crate) unsafe fn copy(
        &self,
        stream: Stream,
        from: DeviceSlice,
        to: DeviceSlice,
    ) -> Result<()> {
        if from == to || from.bytes() == 0 {
            return Ok(());
        }
        let (copy, stream) = (self.driver.functions.copy, self.stream(stream));
        // SAFETY: the caller vouches for both.
        let status = unsafe { copy(address(to), address(from), from.bytes(), stream) };
        self.driver.check("cuMemcpyDtoDAsync", status)
    }

    /// Lets this context reach another's memory by itself, where the machine can; elsewhere the
    /// driver carries copies through the host.
    pub(crate) fn reach(&self, other: &Self) {
        // SAFETY: the thread has this context, and the other is alive.
        unsafe { (self.driver.functions.enable_peer)(other.context, 0) };
    }

    /// Copies from another context's memory when the stream comes to it.
    ///
    /// # Safety
    /// As [`Self::copy`].
    pub(crate) unsafe fn copy_from(
        &self,
        stream: Stream,
        (other, from): (&Self, DeviceSlice),
        to: DeviceSlice,
    ) -> Result<()> {
        let (copy, stream) = (self.driver.functions.copy_between, self.stream(stream));
        let (to_at, from_at, bytes) = (address(to), address(from), from.bytes());
        // SAFETY: the caller vouches for both.
        let status = unsafe { copy(to_at, self.context, from_at, other.context, bytes, stream) };
        self.driver.check("cuMemcpyPeerAsync", status)
    }

    /// Marks the place that a stream has been given work up to.
    pub(crate) fn record(&self, event: CUevent, stream: Stream) -> Result<()> {
        // SAFETY: both are alive, as in the call below.
        let status = unsafe { (self.driver.functions.event_record)(event, self.stream(stream)) };
        self.driver.check("cuEventRecord", status)
    }

    /// Lets a stream go on only behind the last place marked by an event of any context.
    pub(crate) fn wait(&self, stream: Stream, event: CUevent) -> Result<()> {
        // SAFETY: see above.
        let status = unsafe { (self.driver.functions.stream_wait)(self.stream(stream), event, 0) };
        self.driver.check("cuStreamWaitEvent", status)
    }

    /// Destroys an event of [`Self::event`].
    pub(crate) fn destroy(&self, event: CUevent) {
        // SAFETY: made by this context, destroyed once.
        self.inside(|| unsafe { (self.driver.functions.event_destroy)(event) });
    }

    /// Memory of the GPU with whatever is in it, and what frees it.
    pub(crate) fn allocate(self: &Arc<Self>, bytes: usize) -> Result<(*mut u8, Box<dyn Send>)> {
        let mut address: CUdeviceptr = 0;
        // SAFETY: writes one address that lives longer than the call.
        let status = unsafe { (self.driver.functions.allocate)(&raw mut address, bytes.max(1)) };
        self.driver.check("cuMemAlloc", status).map_err(|error| self.short(error, bytes))?;
        let free = self.driver.functions.free;
        // SAFETY: freed once, by whoever drops it.
        let free = self.freeing(move |address| unsafe { free(address as CUdeviceptr) }, address);
        Ok((address as *mut u8, free))
    }

    /// Pinned host memory, zeroed.
    pub(crate) fn host_memory(self: &Arc<Self>, bytes: usize) -> Result<HostBuffer> {
        let mut address = null_mut::<c_void>();
        let allocate = self.driver.functions.host_allocate;
        // SAFETY: writes one address that lives longer than the call.
        let status = unsafe { allocate(&raw mut address, bytes.max(1), PORTABLE) };
        self.driver.check("cuMemHostAlloc", status)?;
        let base = NonNull::new(address.cast::<u8>()).expect("the driver gave memory");
        let free = self.driver.functions.host_free;
        // SAFETY: freed once, by whoever drops it.
        let memory = self.freeing(move |at| unsafe { free(at as *mut c_void) }, address as u64);
        // SAFETY: so many bytes were just allocated, and are freed with `memory`.
        unsafe {
            base.write_bytes(0, bytes);
            Ok(HostBuffer::new(base, bytes, memory))
        }
    }

    /// Pins host memory that is there already, until what is returned is dropped.
    ///
    /// # Safety
    /// It stays mapped until then.
    pub(crate) unsafe fn pin(self: &Arc<Self>, memory: HostSlice) -> Result<Box<dyn Send>> {
        let address = memory.pointer().cast::<c_void>();
        let register = self.driver.functions.host_register;
        // SAFETY: the caller vouches for the memory.
        let status = unsafe { register(address, memory.bytes(), PORTABLE) };
        self.driver.check("cuMemHostRegister", status)?;
        let undo = self.driver.functions.host_unregister;
        // SAFETY: undone once, while the memory is mapped.
        Ok(self.freeing(move |at| unsafe { undo(at as *mut c_void) }, address as u64))
    }

    /// An event, which tells the time or does not.
    pub(crate) fn event(&self, timed: bool) -> Result<CUevent> {
        let mut event = null_mut();
        let flags = if timed { 0 } else { NO_TIME };
        // SAFETY: writes one handle that lives longer than the call.
        let status = unsafe { (self.driver.functions.event_create)(&raw mut event, flags) };
        self.driver.check("cuEventCreate", status).map(|()| event)
    }

    /// Says how much there is, where there is not enough.
    fn short(&self, error: Error, bytes: usize) -> Error {
        let (mut free, mut all) = (0, 0);
        // SAFETY: writes two numbers that live longer than the call.
        let status = unsafe { (self.driver.functions.memory)(&raw mut free, &raw mut all) };
        match error {
            Error::OutOfMemory(what) if status == 0 => Error::OutOfMemory(format!(
                "{what}: {bytes} bytes asked of {}, {free} of {all} free",
                self.card.name
            )),
            error => error,
        }
    }

    /// What frees an address when it is dropped.
    fn freeing(
        self: &Arc<Self>,
        free: impl Fn(u64) -> u32 + Send + 'static,
        address: u64,
    ) -> Box<dyn Send> {
        struct Freed<F: Fn(u64) -> u32>(Arc<Context>, F, u64);
        impl<F: Fn(u64) -> u32> Drop for Freed<F> {
            fn drop(&mut self) {
                self.0.inside(|| self.1(self.2));
            }
        }
        Box::new(Freed(self.clone(), free, address))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.inside(|| {
            for stream in self.streams.into_iter().filter(|stream| !stream.is_null()) {
                // SAFETY: made in `open`, destroyed once.
                unsafe { (self.driver.functions.stream_destroy)(stream) };
            }
        });
        // SAFETY: retained once in `open`.
        unsafe { (self.driver.functions.release)(self.device) };
    }
}

/// A device's memory by the driver's address.
pub(crate) fn address(slice: DeviceSlice) -> CUdeviceptr {
    slice.pointer() as CUdeviceptr
}
