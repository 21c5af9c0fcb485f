//! Snapshot slots: up to two in shared memory, which outlive the process that fills them, or one in
//! a file of the run folder where the host has no memory for any.
//!
//! The parent creates the memory (a memfd) and the engine, its child, opens it by descriptor
//! number. Owns the mapping; the ranks own the regions of a [`Slot`] while they fill them.
//!
//! Whoever writes through the [`DeviceSlice`]s handed out here vouches for that order; who may fill
//! which slot when is the supervisor's business, by messages.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use octet_kernels::memory::DeviceSlice;

use crate::snapshot::slot::{Slot, SlotHead};
use crate::snapshot::{PAGE_BYTES, SnapshotError, SnapshotLayout};

/// Most slots: one is filled while the other is good.
pub const SLOTS: usize = 2;

/// The file of a slot that is not in memory, while it is opened: it has no name afterwards.
const FILE: &str = ".snapshot";

/// The memory of all slots.
#[derive(Debug)]
pub struct SnapshotSlots {
    descriptor: OwnedFd,
    /// Keeps the mapping alive.
    _mapping: MmapRaw,
    memory: DeviceSlice,
    slot_bytes: usize,
    count: usize,
    pub(super) in_memory: bool,
}

impl SnapshotSlots {
    /// As [`Self::create_some`], of [`SLOTS`] slots.
    ///
    /// # Errors
    /// [`SnapshotError::Memory`].
    pub fn create(slot_bytes: usize) -> Result<Arc<Self>, SnapshotError> {
        Self::create_some(slot_bytes, SLOTS)
    }

    /// Memory for so many slots of `slot_bytes` ([`SnapshotLayout::bytes`]). Pages cost something
    /// once they are touched, or all of them from [`Self::take_pages`] on. Children inherit the
    /// descriptor.
    ///
    /// # Errors
    /// [`SnapshotError::Memory`].
    pub fn create_some(slot_bytes: usize, count: usize) -> Result<Arc<Self>, SnapshotError> {
        let bytes = slot_bytes * count;
        let file = File::from(Self::reserve()?);
        file.set_len(bytes as u64).map_err(|why| SnapshotError::Memory { bytes, why })?;
        Self::map(file.into(), slot_bytes, count, true)
    }

    /// One slot in a file of `folder` that goes with this process: a state passes through it on its
    /// way to a checkpoint, at the pace of the disk, and nobody starts from it. What is left of the
    /// host's memory holds as much of it as there is room for.
    ///
    /// # Errors
    /// [`SnapshotError::File`].
    pub fn on_disk(folder: &Path, slot_bytes: usize) -> Result<Arc<Self>, SnapshotError> {
        let path = folder.join(FILE);
        let refused = |why| SnapshotError::File { path: path.clone(), bytes: slot_bytes, why };
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.and_then(|file| std::fs::remove_file(&path).map(|()| file));
        let file = file.map_err(refused)?;
        // All of its space now: a page that finds none later would end the process.
        // SAFETY: works on a descriptor; touches no memory of ours.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, slot_bytes as libc::off_t) } {
            0 => Self::map(file.into(), slot_bytes, 1, false),
            code => Err(refused(io::Error::from_raw_os_error(code))),
        }
    }

    /// How many slots an earlier engine has made of the memory behind this descriptor: none if the
    /// state is to pass through a file, `None` if there was no such engine.
    pub fn count_of(number: RawFd, slot_bytes: usize) -> Option<usize> {
        let bytes = std::fs::metadata(format!("/proc/self/fd/{number}")).ok()?.len();
        (bytes > 0).then_some(bytes as usize / slot_bytes)
    }

    /// Says to later engines that there are no slots in memory.
    ///
    /// # Errors
    /// [`SnapshotError::Memory`].
    pub fn take_none(number: RawFd) -> Result<(), SnapshotError> {
        // SAFETY: works on a descriptor; touches no memory of ours.
        match unsafe { libc::ftruncate(number, 1) } {
            0 => Ok(()),
            _ => Err(SnapshotError::Memory { bytes: 1, why: io::Error::last_os_error() }),
        }
    }

    /// A descriptor without memory yet, for a parent that does not know the layout: the first
    /// engine that opens it by [`Self::from_fd`] decides how much there is. Children inherit it.
    ///
    /// # Errors
    /// [`SnapshotError::Memory`].
    pub fn reserve() -> Result<OwnedFd, SnapshotError> {
        // SAFETY: the name is a C string; no other memory is touched.
        let number = unsafe { libc::memfd_create(c"octet-snapshot".as_ptr(), 0) };
        if number < 0 {
            return Err(SnapshotError::Memory { bytes: 0, why: io::Error::last_os_error() });
        }
        // SAFETY: the call succeeded, and nobody else has seen the descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }

    /// Opens slots that a parent made with the same `slot_bytes`, or reserved, by the descriptor's
    /// number there.
    ///
    /// # Errors
    /// [`SnapshotError::Memory`] if the number is no such descriptor, [`SnapshotError::Size`] if it
    /// holds another amount: another configuration's slots.
    pub fn from_fd(
        number: RawFd,
        slot_bytes: usize,
        count: usize,
    ) -> Result<Arc<Self>, SnapshotError> {
        let bytes = slot_bytes * count;
        let refused = |why| SnapshotError::Memory { bytes, why };
        // SAFETY: duplicating touches no memory; a number that is no descriptor is an error.
        let own = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) };
        if own < 0 {
            return Err(refused(io::Error::last_os_error()));
        }
        // SAFETY: the duplicate is new and ours.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(own) });
        let mut found = file.metadata().map_err(refused)?.len();
        if found == 0 {
            // The first engine decides how much there is.
            file.set_len(bytes as u64).map_err(refused)?;
            found = bytes as u64;
        }
        if found != bytes as u64 {
            return Err(SnapshotError::Size { found, expected: bytes as u64 });
        }
        Self::map(file.into(), slot_bytes, count, true)
    }

    fn map(
        descriptor: OwnedFd,
        slot_bytes: usize,
        count: usize,
        in_memory: bool,
    ) -> Result<Arc<Self>, SnapshotError> {
        assert!(slot_bytes.is_multiple_of(PAGE_BYTES), "slots are whole pages");
        assert!((1..=SLOTS).contains(&count), "{count} slots");
        let bytes = slot_bytes * count;
        let refused = |why| SnapshotError::Memory { bytes, why };
        let mapping =
            MmapOptions::new().len(bytes).map_raw(descriptor.as_raw_fd()).map_err(refused)?;
        // SAFETY: the mapping has that many bytes, readable and writable, and this is the only use
        // of it as a slice: from here on it is known by address.
        let all = unsafe { std::slice::from_raw_parts_mut(mapping.as_mut_ptr(), bytes) };
        let memory = DeviceSlice::from_host(all);
        Ok(Arc::new(Self { descriptor, _mapping: mapping, memory, slot_bytes, count, in_memory }))
    }

    /// Takes every page now, so that no snapshot of the run finds the host without memory.
    /// `available` is what the host has left, if that is known.
    ///
    /// # Errors
    /// [`SnapshotError::Host`] before anything is taken; [`SnapshotError::Memory`].
    pub fn take_pages(&self, available: Option<u64>) -> Result<(), SnapshotError> {
        let bytes = self.slot_bytes * self.count;
        let refused = |why| SnapshotError::Memory { bytes, why };
        let file = File::from(self.descriptor.try_clone().map_err(refused)?);
        let taken = file.metadata().map_err(refused)?.blocks() * 512;
        let needed = (bytes as u64).saturating_sub(taken);
        if let Some(available) = available.filter(|available| needed > *available) {
            return Err(SnapshotError::Host { needed, available });
        }
        // SAFETY: works on a descriptor; touches no memory of ours.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes as libc::off_t) } {
            0 => Ok(()),
            code => Err(refused(io::Error::from_raw_os_error(code))),
        }
    }

    /// The number by which a child opens the slots.
    pub fn fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// Bytes of all slots.
    pub fn bytes(&self) -> usize {
        self.slot_bytes * self.count
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// All of them.
    pub fn all(self: &Arc<Self>, layout: &Arc<SnapshotLayout>) -> Vec<Slot> {
        (0..self.count).map(|index| self.slot(index, layout)).collect()
    }

    /// One slot. Panics if there is no such slot or the layout has another size.
    pub fn slot(self: &Arc<Self>, index: usize, layout: &Arc<SnapshotLayout>) -> Slot {
        assert!(index < self.count, "slot {index} of {}", self.count);
        assert_eq!(layout.bytes(), self.slot_bytes, "the layout of other slots");
        let start = index * self.slot_bytes;
        let memory = self.memory.part(start, self.slot_bytes);
        Slot { slots: self.clone(), layout: layout.clone(), index, memory }
    }

    /// The committed slot of the highest sequence number whose header and, if it was sealed, digest
    /// are right. Reads all of it.
    pub fn newest_good(self: &Arc<Self>, layout: &Arc<SnapshotLayout>) -> NewestGood {
        let mut found = NewestGood { good: None, rejected: Vec::new() };
        for index in 0..self.count {
            let head = match self.slot(index, layout).check() {
                Ok(head) => head,
                Err(SnapshotError::Empty { .. }) => continue,
                Err(damage) => {
                    found.rejected.push(damage);
                    continue;
                }
            };
            if found.good.as_ref().is_none_or(|good| good.head.sequence < head.sequence) {
                found.good = Some(GoodSlot { slot: index, head });
            }
        }
        found
    }
}

/// A slot to start from.
#[derive(Debug, Clone, PartialEq)]
pub struct GoodSlot {
    /// Its number.
    pub slot: usize,
    /// What it says of itself.
    pub head: SlotHead,
}

/// What [`SnapshotSlots::newest_good`] found.
#[derive(Debug)]
pub struct NewestGood {
    /// The slot, if there is one.
    pub good: Option<GoodSlot>,
    /// Slots that claim to be good and are not, to be reported.
    pub rejected: Vec<SnapshotError>,
}
