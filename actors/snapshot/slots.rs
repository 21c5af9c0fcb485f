//! Two snapshot slots in shared memory, which outlive the process that fills them.
//!
//! The parent creates the memory (a memfd) and the engine, its child, opens it by descriptor
//! number. Owns the mapping and the headers; the ranks own the regions while they fill them. The
//! protocol, per slot: [`Slot::invalidate`], fill the regions, [`Slot::commit`]. From then on it is
//! read only, until the next `invalidate`. The committed mark is the last thing written, so that a
//! slot that was being filled when its engine died is never taken for a good one.
//!
//! Whoever writes through the [`DeviceSlice`]s handed out here vouches for that order; who may fill
//! which slot when is the supervisor's business, by messages.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use bytemuck::{Pod, Zeroable};
use memmap2::{MmapOptions, MmapRaw};
use octet_kernels::memory::{DeviceSlice, HostSlice, Span};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::snapshot::{
    CURSOR_BYTES_MAX, FACTS_BYTES_MAX, LogicalTensor, PAGE_BYTES, Region, SnapshotError,
    SnapshotLayout, digest,
};

/// One is filled while the other is good.
pub const SLOTS: usize = 2;

/// "octetsnp"
const MAGIC: u64 = u64::from_le_bytes(*b"octetsnp");
const VERSION: u64 = 2;

/// Offsets in the first page of a slot. The marks have cache lines of their own.
const COMMITTED: usize = 0;
const SEALED: usize = 64;
const FIELDS: usize = 128;
const SEAL: usize = 1024;
/// And of the facts, behind the cursor.
const FACTS: usize = PAGE_BYTES + CURSOR_BYTES_MAX;

/// The fixed fields of a committed slot.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Fields {
    magic: u64,
    version: u64,
    sequence: u64,
    step: u64,
    cursor_bytes: u64,
    facts_bytes: u64,
    layout: [u8; 32],
    /// blake3 of the fields above, of the cursor and of the facts.
    check: [u8; 32],
}

impl Fields {
    fn hash(&self, cursor: &[u8], facts: &[u8]) -> [u8; 32] {
        let unchecked = Self { check: [0; 32], ..*self };
        let mut hasher = blake3::Hasher::new();
        hasher.update(bytemuck::bytes_of(&unchecked));
        hasher.update(cursor);
        hasher.update(facts);
        hasher.finalize().into()
    }
}

/// The memory of both slots.
#[derive(Debug)]
pub struct SnapshotSlots {
    descriptor: OwnedFd,
    /// Keeps the mapping alive.
    _mapping: MmapRaw,
    memory: DeviceSlice,
    slot_bytes: usize,
}

impl SnapshotSlots {
    /// Memory for two slots of `slot_bytes` ([`SnapshotLayout::bytes`]). Pages cost something once
    /// they are touched, or all of them from [`Self::take_pages`] on. Children inherit the
    /// descriptor.
    ///
    /// # Errors
    /// [`SnapshotError::Memory`].
    pub fn create(slot_bytes: usize) -> Result<Arc<Self>, SnapshotError> {
        let bytes = slot_bytes * SLOTS;
        let file = File::from(Self::reserve()?);
        file.set_len(bytes as u64).map_err(|why| SnapshotError::Memory { bytes, why })?;
        Self::map(file.into(), slot_bytes)
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
    pub fn from_fd(number: RawFd, slot_bytes: usize) -> Result<Arc<Self>, SnapshotError> {
        let bytes = slot_bytes * SLOTS;
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
        Self::map(file.into(), slot_bytes)
    }

    fn map(descriptor: OwnedFd, slot_bytes: usize) -> Result<Arc<Self>, SnapshotError> {
        assert!(slot_bytes.is_multiple_of(PAGE_BYTES), "slots are whole pages");
        let bytes = slot_bytes * SLOTS;
        let refused = |why| SnapshotError::Memory { bytes, why };
        let mapping =
            MmapOptions::new().len(bytes).map_raw(descriptor.as_raw_fd()).map_err(refused)?;
        // SAFETY: the mapping has that many bytes, readable and writable, and this is the only use
        // of it as a slice: from here on it is known by address.
        let all = unsafe { std::slice::from_raw_parts_mut(mapping.as_mut_ptr(), bytes) };
        let memory = DeviceSlice::from_host(all);
        Ok(Arc::new(Self { descriptor, _mapping: mapping, memory, slot_bytes }))
    }

    /// Takes every page now, so that no snapshot of the run finds the host without memory.
    /// `available` is what the host has left, if that is known.
    ///
    /// # Errors
    /// [`SnapshotError::Host`] before anything is taken; [`SnapshotError::Memory`].
    pub fn take_pages(&self, available: Option<u64>) -> Result<(), SnapshotError> {
        let bytes = self.slot_bytes * SLOTS;
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

    /// All of the memory, to register it with a device.
    pub fn memory(&self) -> DeviceSlice {
        self.memory
    }

    /// One slot. Panics if there is no such slot or the layout has another size.
    pub fn slot(self: &Arc<Self>, index: usize, layout: &Arc<SnapshotLayout>) -> Slot {
        assert!(index < SLOTS, "slot {index} of {SLOTS}");
        assert_eq!(layout.bytes(), self.slot_bytes, "the layout of other slots");
        Slot { slots: self.clone(), layout: layout.clone(), index }
    }

    /// The committed slot of the highest sequence number whose header and, if it was sealed, digest
    /// are right. Reads all of it.
    pub fn newest_good(self: &Arc<Self>, layout: &Arc<SnapshotLayout>) -> NewestGood {
        let mut found = NewestGood { good: None, rejected: Vec::new() };
        for index in 0..SLOTS {
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

/// What a committed slot says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotHead {
    /// Grows with every commit of a run: the higher, the newer.
    pub sequence: u64,
    /// Steps done.
    pub step: u64,
    /// Where the data goes on.
    pub cursor: Value,
    /// What else a start from it must know.
    pub facts: SlotFacts,
    /// The digest, once somebody computed it, as hexadecimal digits.
    pub digest: Option<String>,
}

/// What stands beside a state, and is no part of its digest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SlotFacts {
    /// What the run's decisions about bad updates depend on; its owner knows what it means.
    pub recovery: Value,
    /// What a resume must reproduce to get the same bits.
    pub identity: BTreeMap<String, String>,
}

/// A handle to one slot. Cheap to clone; many threads may hold one.
#[derive(Debug, Clone)]
pub struct Slot {
    slots: Arc<SnapshotSlots>,
    layout: Arc<SnapshotLayout>,
    index: usize,
}

impl Slot {
    /// Its number.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The layout of its regions.
    pub fn layout(&self) -> &Arc<SnapshotLayout> {
        &self.layout
    }

    /// A region, to fill between [`Self::invalidate`] and [`Self::commit`], or to read afterwards.
    pub fn region(&self, region: Region) -> DeviceSlice {
        self.part(self.layout.region(region))
    }

    /// Flat elements of the masters or of a plane. Panics if they stick out, and for other regions.
    pub fn elements(&self, region: Region, elements: &Range<usize>) -> DeviceSlice {
        let bytes = |elements| self.layout.flat_bytes(region, elements);
        self.region(region).part(bytes(elements.start), bytes(elements.len()))
    }

    /// The bytes of one tensor.
    pub fn tensor(&self, tensor: &LogicalTensor) -> DeviceSlice {
        self.part(tensor.span)
    }

    /// All of it, to be pinned.
    pub fn memory(&self) -> HostSlice {
        HostSlice::at(self.part(Span { offset: 0, bytes: self.slots.slot_bytes }))
    }

    fn part(&self, span: Span) -> DeviceSlice {
        let start = self.index * self.slots.slot_bytes;
        self.slots.memory.part(start, self.slots.slot_bytes).part(span.offset, span.bytes)
    }

    fn mark(&self, offset: usize) -> &AtomicU64 {
        let pointer = self.part(Span { offset, bytes: 8 }).pointer();
        // SAFETY: mapped as long as `self`, aligned to 8 bytes, and only ever accessed as an
        // atomic.
        unsafe { AtomicU64::from_ptr(pointer.cast()) }
    }

    /// Says that its content means nothing from now on. Comes before the first write.
    pub fn invalidate(&self) {
        self.mark(COMMITTED).store(0, Ordering::SeqCst);
        self.mark(SEALED).store(0, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// As [`Self::commit_with`], without facts.
    ///
    /// # Errors
    /// As [`Self::commit_with`].
    pub fn commit(&self, step: u64, cursor: &Value, sequence: u64) -> Result<(), SnapshotError> {
        self.commit_with(step, cursor, &SlotFacts::default(), sequence)
    }

    /// Declares the content complete. Every filler has finished, and told the caller so. `sequence`
    /// is 1 or more and grows. Costs microseconds: the digest comes later, by [`Self::seal`].
    ///
    /// # Errors
    /// [`SnapshotError::Cursor`], [`SnapshotError::Facts`] if they are too long; the slot stays
    /// invalid.
    pub fn commit_with(
        &self,
        step: u64,
        cursor: &Value,
        facts: &SlotFacts,
        sequence: u64,
    ) -> Result<(), SnapshotError> {
        assert!(sequence > 0, "sequence 0 marks an empty slot");
        self.invalidate();
        let cursor = digest::canonical(cursor).into_bytes();
        if cursor.len() > CURSOR_BYTES_MAX {
            return Err(SnapshotError::Cursor { bytes: cursor.len() });
        }
        let facts = serde_json::to_vec(facts).expect("plain data becomes JSON");
        if facts.len() > FACTS_BYTES_MAX {
            return Err(SnapshotError::Facts { bytes: facts.len() });
        }
        let mut fields = Fields {
            magic: MAGIC,
            version: VERSION,
            sequence,
            step,
            cursor_bytes: cursor.len() as u64,
            facts_bytes: facts.len() as u64,
            layout: self.layout.digest(),
            check: [0; 32],
        };
        fields.check = fields.hash(&cursor, &facts);
        self.write(FIELDS, bytemuck::bytes_of(&fields));
        self.write(PAGE_BYTES, &cursor);
        self.write(FACTS, &facts);
        self.mark(COMMITTED).store(sequence, Ordering::Release);
        Ok(())
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        let target = self.part(Span { offset, bytes: bytes.len() });
        // SAFETY: header memory of an uncommitted slot, which only its committer touches.
        unsafe { target.as_mut_slice::<u8>() }.copy_from_slice(bytes);
    }

    fn read(&self, offset: usize, bytes: usize) -> &[u8] {
        // SAFETY: read only after the committed mark, which its writer stored last with `Release`.
        unsafe { self.part(Span { offset, bytes }).as_slice() }
    }

    /// Reads the header, not the content.
    ///
    /// # Errors
    /// [`SnapshotError::Empty`] or [`SnapshotError::Damaged`].
    pub fn head(&self) -> Result<SlotHead, SnapshotError> {
        let committed = self.mark(COMMITTED).load(Ordering::Acquire);
        if committed == 0 {
            return Err(SnapshotError::Empty { slot: self.index });
        }
        let fields: Fields = bytemuck::pod_read_unaligned(self.read(FIELDS, size_of::<Fields>()));
        if (fields.magic, fields.version) != (MAGIC, VERSION) {
            return Err(self.damaged("not a snapshot of this version"));
        }
        let (length, facts) = (fields.cursor_bytes as usize, fields.facts_bytes as usize);
        let fits = length <= CURSOR_BYTES_MAX && facts <= FACTS_BYTES_MAX;
        if !fits || fields.sequence != committed {
            return Err(self.damaged("the header contradicts itself"));
        }
        let (cursor, facts) = (self.read(PAGE_BYTES, length), self.read(FACTS, facts));
        if fields.hash(cursor, facts) != fields.check {
            return Err(self.damaged("the header's hash is wrong"));
        }
        if fields.layout != self.layout.digest() {
            return Err(self.damaged("it holds other tensors than this run"));
        }
        let cursor = serde_json::from_slice(cursor);
        let cursor = cursor.map_err(|e| self.damaged(&format!("the cursor: {e}")))?;
        let facts = serde_json::from_slice(facts);
        let facts = facts.map_err(|e| self.damaged(&format!("the facts: {e}")))?;
        let sealed = self.mark(SEALED).load(Ordering::Acquire) == committed;
        let digest = sealed.then(|| {
            let hash: [u8; 32] = bytemuck::pod_read_unaligned(self.read(SEAL, 32));
            blake3::Hash::from(hash).to_hex().to_string()
        });
        Ok(SlotHead { sequence: fields.sequence, step: fields.step, cursor, facts, digest })
    }

    fn damaged(&self, what: &str) -> SnapshotError {
        SnapshotError::Damaged { slot: self.index, what: what.to_string() }
    }

    /// The content, once it is committed.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub fn view(&self) -> Result<SlotView<'_>, SnapshotError> {
        Ok(SlotView { slot: self, head: self.head()? })
    }

    /// Computes the digest and stores it in the header, so that a later start can check the
    /// content.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub fn seal(&self) -> Result<String, SnapshotError> {
        let digest = digest::digest(&self.view()?);
        self.seal_with(&digest)?;
        Ok(digest)
    }

    /// Stores a digest that the caller computed from this content.
    ///
    /// # Errors
    /// As [`Self::head`], and [`SnapshotError::Damaged`] if the slot was sealed with another
    /// digest: its content changed after its commit.
    pub fn seal_with(&self, digest: &str) -> Result<(), SnapshotError> {
        let head = self.head()?;
        if head.digest.is_some_and(|sealed| sealed != digest) {
            return Err(self.damaged("its content changed after it was sealed"));
        }
        let hash = blake3::Hash::from_hex(digest)
            .map_err(|e| self.damaged(&format!("sealing with {digest:?}: {e}")))?;
        self.write(SEAL, hash.as_bytes());
        self.mark(SEALED).store(head.sequence, Ordering::Release);
        Ok(())
    }

    /// Reads the header and, if it was sealed, all of the content.
    ///
    /// # Errors
    /// As [`Self::head`], and [`SnapshotError::Damaged`] if the digest is another.
    pub fn check(&self) -> Result<SlotHead, SnapshotError> {
        let view = self.view()?;
        if let Some(sealed) = &view.head.digest
            && *sealed != digest::digest(&view)
        {
            return Err(self.damaged("its digest is wrong"));
        }
        Ok(view.head)
    }
}

/// A committed slot, to read.
#[derive(Debug)]
pub struct SlotView<'a> {
    slot: &'a Slot,
    head: SlotHead,
}

impl SlotView<'_> {
    /// The slot.
    pub fn slot(&self) -> &Slot {
        self.slot
    }

    /// What it said of itself when the view was taken.
    pub fn head(&self) -> &SlotHead {
        &self.head
    }

    /// The layout of the content.
    pub fn layout(&self) -> &SnapshotLayout {
        &self.slot.layout
    }

    /// The bytes of one tensor.
    pub fn bytes(&self, tensor: &LogicalTensor) -> &[u8] {
        // SAFETY: mapped as long as the slot; its fillers finished before it was committed, and
        // none starts again while the slot is lent out (the protocol above).
        unsafe { self.slot.tensor(tensor).as_slice() }
    }
}
