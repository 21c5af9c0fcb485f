//! One snapshot slot: its header, and the protocol by which it is filled and read.
//!
//! [`Slot::invalidate`], fill the regions, [`Slot::commit`]; from then on it is read only, until
//! the next `invalidate`. The committed mark is the last thing written, so that a slot that was
//! being filled when its engine died is never taken for a good one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use bytemuck::{Pod, Zeroable};
use octet_kernels::memory::{DeviceSlice, HostSlice, Span};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::snapshot::slots::SnapshotSlots;
use crate::snapshot::{
    CURSOR_BYTES_MAX, FACTS_BYTES_MAX, LogicalTensor, PAGE_BYTES, Region, SnapshotError,
    SnapshotLayout, digest,
};

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
    /// Keeps the memory alive.
    pub(super) slots: Arc<SnapshotSlots>,
    pub(super) layout: Arc<SnapshotLayout>,
    pub(super) index: usize,
    pub(super) memory: DeviceSlice,
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

    /// All of it, to be pinned; nothing if it is a file's.
    pub fn memory(&self) -> Option<HostSlice> {
        self.slots.in_memory.then(|| HostSlice::at(self.memory))
    }

    fn part(&self, span: Span) -> DeviceSlice {
        self.memory.part(span.offset, span.bytes)
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
