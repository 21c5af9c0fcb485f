//! One planned arena per device: every region has its offset before any memory is taken.
//!
//! Owns the arena's bytes. Nothing here grows: what is not in the plan does not exist.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::NonNull;

use crate::error::{Error, Result};

#[cfg(test)]
mod tests;

/// Regions start at multiples of this many bytes (what TMA, cuBLASLt and AVX-512 ask for, and
/// more).
pub const REGION_ALIGNMENT: usize = 256;

/// An arena in host memory starts at a page, a large one at a large page.
const PAGE: usize = 4096;

/// Bytes of a large page: what one entry of the address cache can cover, so that products over long
/// rows do not wait for addresses.
const LARGE_PAGE: usize = 2 << 20;

/// A range inside an arena, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Offset from the arena's start.
    pub offset: usize,
    /// Length.
    pub bytes: usize,
}

impl Span {
    /// The part that starts `offset` bytes in and is `bytes` long. Panics if it sticks out.
    pub fn part(self, offset: usize, bytes: usize) -> Self {
        assert!(offset + bytes <= self.bytes, "part {offset}+{bytes} of {} bytes", self.bytes);
        Self { offset: self.offset + offset, bytes }
    }
}

/// A named region of an arena.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// What it holds, for the plan's table.
    pub name: String,
    /// Where.
    pub span: Span,
}

/// The layout of an arena: a written sum of reasons.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArenaPlan {
    regions: Vec<Region>,
    bytes: usize,
}

impl ArenaPlan {
    /// An empty plan.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a region of `bytes` and returns where it lies. Zero bytes cost nothing.
    pub fn reserve(&mut self, name: impl Into<String>, bytes: usize) -> Span {
        let span = Span { offset: self.bytes, bytes };
        self.bytes += bytes.next_multiple_of(REGION_ALIGNMENT);
        self.regions.push(Region { name: name.into(), span });
        span
    }

    /// Total bytes, which is what a device allocates.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All regions, in order.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }
}

/// A range of device memory by address: what ops and collectives are given.
///
/// It carries no lifetime: the plan guarantees that it lies in a live arena and that nobody else
/// writes it while it is used. Everything that turns it into a Rust slice is `unsafe` for that
/// reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceSlice {
    pointer: *mut u8,
    bytes: usize,
}

// SAFETY: an address and a length; whoever dereferences it vouches for exclusive use.
unsafe impl Send for DeviceSlice {}
// SAFETY: as above.
unsafe impl Sync for DeviceSlice {}

impl DeviceSlice {
    /// A range of host memory, for tests and staging.
    pub fn from_host<T: bytemuck::Pod>(data: &mut [T]) -> Self {
        Self { pointer: data.as_mut_ptr().cast(), bytes: size_of_val(data) }
    }

    /// Length in bytes.
    pub fn bytes(self) -> usize {
        self.bytes
    }

    /// Start address.
    pub fn pointer(self) -> *mut u8 {
        self.pointer
    }

    /// The part that starts `offset` bytes in and is `bytes` long. Panics if it sticks out.
    pub fn part(self, offset: usize, bytes: usize) -> Self {
        assert!(offset + bytes <= self.bytes, "part {offset}+{bytes} of {} bytes", self.bytes);
        // Not `add`: an address of a device is none of this process's allocations.
        Self { pointer: self.pointer.wrapping_add(offset), bytes }
    }

    /// Reads it as elements.
    ///
    /// # Safety
    /// The memory is host-accessible, alive and initialised, and nobody writes it meanwhile.
    pub unsafe fn as_slice<'a, T: bytemuck::Pod>(self) -> &'a [T] {
        debug_assert!((self.pointer as usize).is_multiple_of(align_of::<T>()));
        // SAFETY: the caller vouches for the memory; `Pod` accepts every bit pattern.
        unsafe { std::slice::from_raw_parts(self.pointer.cast(), self.bytes / size_of::<T>()) }
    }

    /// Reads and writes it as elements.
    ///
    /// # Safety
    /// As [`Self::as_slice`], and nobody else reads it meanwhile.
    pub unsafe fn as_mut_slice<'a, T: bytemuck::Pod>(self) -> &'a mut [T] {
        debug_assert!((self.pointer as usize).is_multiple_of(align_of::<T>()));
        // SAFETY: the caller vouches for the memory; `Pod` accepts every bit pattern.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.cast(), self.bytes / size_of::<T>()) }
    }
}

/// A range of host memory by address: what copies between host and device read and write when
/// their turn comes, which may be after the call that asked for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostSlice(DeviceSlice);

impl HostSlice {
    /// Host memory that is known by its address.
    pub fn at(memory: DeviceSlice) -> Self {
        Self(memory)
    }

    /// Bytes that are read later: they must stay, unchanged, until then.
    pub fn of(bytes: &[u8]) -> Self {
        Self(DeviceSlice { pointer: bytes.as_ptr().cast_mut(), bytes: bytes.len() })
    }

    /// Bytes that are written later: they must stay, untouched, until then.
    pub fn of_mut(bytes: &mut [u8]) -> Self {
        Self(DeviceSlice::from_host(bytes))
    }

    /// Length in bytes.
    pub fn bytes(self) -> usize {
        self.0.bytes
    }

    /// Start address.
    pub fn pointer(self) -> *mut u8 {
        self.0.pointer
    }

    /// Reads it.
    ///
    /// # Safety
    /// The memory is alive, and nobody writes it meanwhile.
    pub unsafe fn as_slice<'a>(self) -> &'a [u8] {
        // SAFETY: the caller vouches for it.
        unsafe { self.0.as_slice() }
    }

    /// Writes it.
    ///
    /// # Safety
    /// As [`Self::as_slice`], nobody reads it meanwhile, and it was made of bytes that may change.
    pub unsafe fn as_mut_slice<'a>(self) -> &'a mut [u8] {
        // SAFETY: the caller vouches for it.
        unsafe { self.0.as_mut_slice() }
    }
}

/// Host memory that a device has given: its copies reach it by themselves. Whoever is asked for a
/// copy vouches that nobody touches the bytes until that is done.
pub struct HostBuffer {
    base: NonNull<u8>,
    bytes: usize,
    /// Whatever frees the bytes when it is dropped.
    _memory: Box<dyn Send>,
}

// SAFETY: owns its bytes, as a `Vec` does.
unsafe impl Send for HostBuffer {}

impl HostBuffer {
    /// A buffer over bytes that `memory` frees when it is dropped, on whichever thread.
    ///
    /// # Safety
    /// `base` is the start of `bytes` initialised bytes of host memory that stay where they are,
    /// and that nobody else uses, as long as `memory` lives.
    pub unsafe fn new(base: NonNull<u8>, bytes: usize, memory: Box<dyn Send>) -> Self {
        Self { base, bytes, _memory: memory }
    }

    /// Zeroed bytes at a page's start, with nothing special about them.
    ///
    /// # Errors
    /// [`Error::Device`] when the system refuses.
    pub fn plain(bytes: usize) -> Result<Self> {
        let memory = HostMemory::zeroed(bytes)?;
        // SAFETY: these are the bytes of `memory`, which is given away with them.
        Ok(unsafe { Self::new(memory.base, bytes, Box::new(memory)) })
    }

    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: they are there and initialised as long as `self`.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.bytes) }
    }

    /// The bytes, to change.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed for it.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.bytes) }
    }

    /// A part by address, for copies. Panics if it sticks out.
    pub fn part(&self, offset: usize, bytes: usize) -> HostSlice {
        let all = DeviceSlice { pointer: self.base.as_ptr(), bytes: self.bytes };
        HostSlice(all.part(offset, bytes))
    }
}

impl std::fmt::Debug for HostBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostBuffer({} bytes)", self.bytes)
    }
}

/// The memory of one rank, exactly as large as its plan, on whichever device.
pub struct Arena {
    all: DeviceSlice,
    /// Whatever frees the bytes when it is dropped.
    _memory: Box<dyn Send>,
}

impl Arena {
    /// An arena over bytes that `memory` frees when it is dropped.
    ///
    /// # Safety
    /// `base` is the start of `bytes` bytes of the device that stay where they are, and that nobody
    /// else uses, as long as `memory` lives.
    pub unsafe fn new(base: *mut u8, bytes: usize, memory: Box<dyn Send>) -> Self {
        Self { all: DeviceSlice { pointer: base, bytes }, _memory: memory }
    }

    /// The plan's bytes in host memory, zeroed.
    ///
    /// # Errors
    /// [`Error::Device`] when the plan is too large for an address.
    pub fn in_host_memory(plan: &ArenaPlan) -> Result<Self> {
        let memory = HostMemory::zeroed(plan.bytes())?;
        // SAFETY: these are the bytes of `memory`, which is given away with them.
        Ok(unsafe { Self::new(memory.base(), plan.bytes(), Box::new(memory)) })
    }

    /// Size in bytes: the plan's, to the byte.
    pub fn bytes(&self) -> usize {
        self.all.bytes
    }

    /// The range by address. Panics if it sticks out.
    pub fn slice(&self, span: Span) -> DeviceSlice {
        self.all.part(span.offset, span.bytes)
    }
}

/// Zeroed host memory at a page's start, on large pages if it fills any and the system has them.
#[derive(Debug)]
pub struct HostMemory {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: owns plain memory; access goes through `DeviceSlice`, whose users vouch for exclusion.
unsafe impl Send for HostMemory {}

impl HostMemory {
    /// Takes `bytes`, zeroed.
    ///
    /// # Errors
    /// [`Error::Device`] when that is too large for an address or the system refuses.
    pub fn zeroed(bytes: usize) -> Result<Self> {
        let alignment = if bytes < LARGE_PAGE { PAGE } else { LARGE_PAGE };
        let layout = Layout::from_size_align(bytes.max(1), alignment)
            .map_err(|e| Error::Device(format!("an arena of {bytes} bytes: {e}")))?;
        // SAFETY: the size is not zero.
        let base = unsafe { alloc(layout) };
        let refused = || Error::Device(format!("the system has no {bytes} bytes for an arena"));
        let base = NonNull::new(base).ok_or_else(refused)?;
        ask_for_large_pages(base, bytes);
        // SAFETY: the bytes were just allocated.
        unsafe { base.write_bytes(0, bytes) };
        Ok(Self { base, layout })
    }

    /// Its first byte.
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

/// Asks the system to back the whole large pages of an arena by such. It may decline.
fn ask_for_large_pages(base: NonNull<u8>, bytes: usize) {
    let whole = bytes - bytes % LARGE_PAGE;
    #[cfg(target_os = "linux")]
    if whole > 0 {
        // SAFETY: the range is ours, and the advice changes no content. A refusal costs only time.
        unsafe { libc::madvise(base.as_ptr().cast(), whole, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (base, whole);
}
