//! The snapshot: the whole state of a run in one piece of host memory, and its logical tensors.
//!
//! Owns the layout of that piece, a slot; [`slots`] owns its memory, [`digest`] says what it is
//! worth. Ranks fill it at disjoint ranges, so it knows no ranks, and padding belongs to no tensor,
//! so the same state has the same tensors whatever the layout. It never touches a device or a file.
//!
//! One slot, every region at a page edge:
//!
//! | Region | What | Bytes |
//! |---|---|---|
//! | header | numbers, hashes, the cursor and [`SlotFacts`] as JSON | [`HEADER_BYTES`] |
//! | masters | flat f32 values of all trainable parameters | 4 × `layout.elements` |
//! | planes | what the optimizer stores, plane by plane ([`Plane`]) | [`Plane::bytes`] |
//! | frozen | the tail of the parameter region, as stored | |
//! | states | every [`StateUse::Replicated`] state, one after the other | |
//!
//! A trainable parameter is saved as its f32 master, whatever its dtype: the stored parameter is
//! the master rounded once, so it is not saved. For an f32 parameter the master is the parameter.

use std::ops::Range;
use std::path::PathBuf;

use octet_kernels::dtype::DType;
use octet_kernels::graph::{Layout, StateId, StateUse, Variables};
use octet_kernels::memory::Span;
use octet_kernels::update::Plane;
use thiserror::Error;

use crate::contract::Workload;
use crate::units::size;

pub mod digest;
pub mod slot;
pub mod slots;
#[cfg(test)]
pub(crate) mod tests;

pub use digest::digest;
pub use slot::{Slot, SlotFacts, SlotHead, SlotView};
pub use slots::{GoodSlot, NewestGood, SLOTS, SnapshotSlots};

/// Bytes in front of a slot's regions: a page of fixed fields, three of cursor, the facts.
pub const HEADER_BYTES: usize = PAGE_BYTES + CURSOR_BYTES_MAX + FACTS_BYTES_MAX;

/// Longest cursor, as JSON: 64 sources of a mixture at 128 bytes each, 64 samples carried over at
/// 48, and 1 KiB for the rest.
pub const CURSOR_BYTES_MAX: usize = 12 * 1024;

/// Longest facts, as JSON: 8 KiB for two windows of recent updates, 4 KiB for the roll-backs of a
/// run, and 36 KiB for what its numbers depend on, 100 bytes a key.
pub const FACTS_BYTES_MAX: usize = 48 * 1024;

/// Regions start at multiples of this, so that ranks copy whole pages.
const PAGE_BYTES: usize = 4096;

/// Bytes of a flat value.
const FLAT: usize = size_of::<f32>();

/// What is wrong with snapshot memory.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The operating system refused memory or a descriptor.
    #[error("snapshot memory of {}: {why}", size(*bytes as u64))]
    Memory {
        /// How much was asked for.
        bytes: usize,
        /// Its words.
        why: std::io::Error,
    },
    /// There is no file for a slot that is not in memory.
    #[error(
        "{}: a snapshot that passes through a file takes {}: {why}",
        path.display(), size(*bytes as u64)
    )]
    File {
        /// Where it was to be.
        path: PathBuf,
        /// How much was asked for.
        bytes: usize,
        /// The system's words.
        why: std::io::Error,
    },
    /// The host has less memory than the slots take.
    #[error(
        "snapshot memory takes {} and the host has {} left; take a smaller model, fewer \
         run.snapshots, or a host with more memory (octet plan shows what is needed)",
        size(*needed), size(*available)
    )]
    Host {
        /// Bytes of the slots that are not taken yet.
        needed: u64,
        /// What the host has.
        available: u64,
    },
    /// The inherited memory has another size than this run's layout.
    #[error(
        "snapshot memory has {found} bytes, this run needs {expected}: the configuration was \
         changed while the run was starting again; start it anew"
    )]
    Size {
        /// What it has.
        found: u64,
        /// What the layout says.
        expected: u64,
    },
    /// Nothing was committed here.
    #[error("snapshot slot {slot} holds nothing")]
    Empty {
        /// Which slot.
        slot: usize,
    },
    /// The slot says that it was committed, and it is not what was committed.
    #[error("snapshot slot {slot}: {what}")]
    Damaged {
        /// Which slot.
        slot: usize,
        /// What does not fit.
        what: String,
    },
    /// The facts do not fit in the header.
    #[error("facts of {bytes} bytes; a snapshot takes {FACTS_BYTES_MAX}")]
    Facts {
        /// Their length as JSON.
        bytes: usize,
    },
    /// The cursor does not fit in the header.
    #[error("a cursor of {bytes} bytes; a snapshot takes {CURSOR_BYTES_MAX}")]
    Cursor {
        /// Its length as JSON.
        bytes: usize,
    },
}

/// A part of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Region {
    /// Flat f32 values of the trainable parameters.
    Masters,
    /// A plane of the optimizer, by number.
    Plane(usize),
    /// Frozen parameters as stored.
    Frozen,
    /// Saved states.
    States,
}

/// What a logical tensor is, which decides its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorKind {
    /// A parameter or a state: part of the model.
    Model,
    /// Part of a plane of the optimizer.
    Optimizer,
}

/// A tensor of the run's state, without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogicalTensor {
    /// `NAME`, `NAME.exp_avg` and the like ([`Plane::suffix`]), or `state.NAME`.
    pub name: String,
    /// Model or optimizer.
    pub kind: TensorKind,
    /// Type in the slot.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Where it lies in the slot.
    pub span: Span,
}

/// How one saved state is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedState {
    /// Which.
    pub state: StateId,
    /// Its bytes in a rank's state region.
    pub device: Range<usize>,
    /// Its bytes in [`Region::States`].
    pub slot: Range<usize>,
}

/// The layout of one slot: a pure function of the variables and their flat layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotLayout {
    masters: Span,
    planes: Vec<(Plane, Span)>,
    frozen_parameters: Span,
    states: Span,
    tensors: Vec<LogicalTensor>,
    saved_states: Vec<SavedState>,
    frozen: Range<usize>,
    bytes: usize,
    digest: [u8; 32],
}

impl SnapshotLayout {
    /// The layout of a run's slots.
    pub fn of(workload: &dyn Workload) -> Self {
        let planes = workload.optimizer().planes();
        Self::new(workload.variables(), workload.layout(), &planes)
    }

    /// Lays out a slot. Panics if two logical tensors would have one name.
    pub fn new(variables: &Variables, layout: &Layout, planes: &[Plane]) -> Self {
        let buckets = layout.buckets.iter();
        let trained = buckets.map(|b| b.byte + b.elements.len() * b.dtype.bytes()).max();
        let frozen = trained.unwrap_or(0)..layout.parameter_bytes;
        let saved_states = saved_states(variables, layout);
        let states = saved_states.last().map_or(0, |s| s.slot.end);
        let mut bytes = HEADER_BYTES;
        let mut region = |length: usize| {
            let span = Span { offset: bytes, bytes: length };
            bytes += length.next_multiple_of(PAGE_BYTES);
            span
        };
        let masters = region(layout.elements * FLAT);
        let plane = |plane: &Plane| (*plane, region(plane.bytes(layout.elements)));
        let planes = planes.iter().map(plane).collect();
        let (frozen_parameters, states) = (region(frozen.len()), region(states));
        let mut new = Self {
            masters,
            planes,
            frozen_parameters,
            states,
            tensors: Vec::new(),
            saved_states,
            frozen,
            bytes,
            digest: [0; 32],
        };
        new.add_parameters(variables, layout);
        new.add_states(variables);
        new.tensors.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for pair in new.tensors.windows(2) {
            assert!(pair[0].name != pair[1].name, "two saved tensors named {}", pair[0].name);
        }
        new.digest = new.hash();
        new
    }

    fn add_parameters(&mut self, variables: &Variables, layout: &Layout) {
        for (parameter, place) in variables.parameters().iter().zip(&layout.placements) {
            let name = || parameter.name.clone();
            let model = |dtype: DType, region: Span, offset| LogicalTensor {
                name: name(),
                kind: TensorKind::Model,
                dtype,
                shape: parameter.shape.clone(),
                span: region.part(offset, parameter.elements() * dtype.bytes()),
            };
            if !parameter.trainable {
                let start = place.byte - self.frozen.start;
                self.tensors.push(model(parameter.dtype, self.frozen_parameters, start));
                continue;
            }
            self.tensors.push(model(DType::F32, self.masters, place.start * FLAT));
            let stored = |(plane, region): &(Plane, Span)| LogicalTensor {
                name: format!("{}.{}", name(), plane.suffix()),
                kind: TensorKind::Optimizer,
                dtype: plane.dtype,
                shape: plane.shape(&parameter.shape),
                span: region.part(plane.bytes(place.start), plane.bytes(parameter.elements())),
            };
            self.tensors.extend(self.planes.iter().map(stored));
        }
    }

    fn add_states(&mut self, variables: &Variables) {
        let region = self.states;
        for saved in &self.saved_states {
            let state = &variables.states()[saved.state.0];
            self.tensors.push(LogicalTensor {
                name: format!("state.{}", state.name),
                kind: TensorKind::Model,
                dtype: state.dtype,
                shape: state.shape.clone(),
                span: region.part(saved.slot.start, saved.slot.len()),
            });
        }
    }

    /// Every tensor with its place, so that one engine never reads another layout's slot.
    fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("octet snapshot layout 1");
        for tensor in &self.tensors {
            let LogicalTensor { name, dtype, shape, span, .. } = tensor;
            let line = format!("{name} {dtype} {shape:?} {} {}\n", span.offset, span.bytes);
            hasher.update(line.as_bytes());
        }
        hasher.update(&(self.bytes as u64).to_le_bytes());
        hasher.finalize().into()
    }

    /// Bytes of one slot, whole pages.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where a region lies in the slot.
    pub fn region(&self, region: Region) -> Span {
        match region {
            Region::Masters => self.masters,
            Region::Plane(i) => self.planes[i].1,
            Region::Frozen => self.frozen_parameters,
            Region::States => self.states,
        }
    }

    /// All regions, in the order in which they lie.
    pub fn regions(&self) -> impl Iterator<Item = Region> + use<> {
        let planes = (0..self.planes.len()).map(Region::Plane);
        [Region::Masters].into_iter().chain(planes).chain([Region::Frozen, Region::States])
    }

    /// Bytes of so many flat elements in the masters or in a plane. Panics for other regions.
    pub fn flat_bytes(&self, region: Region, elements: usize) -> usize {
        match region {
            Region::Masters => elements * FLAT,
            Region::Plane(i) => self.planes[i].0.bytes(elements),
            Region::Frozen | Region::States => panic!("{region:?} is not flat"),
        }
    }

    /// The logical tensors, in byte order of their names.
    pub fn tensors(&self) -> &[LogicalTensor] {
        &self.tensors
    }

    /// The saved states, in the order in which they were added to the variables.
    pub fn saved_states(&self) -> &[SavedState] {
        &self.saved_states
    }

    /// The bytes of a rank's parameter region that [`Region::Frozen`] mirrors, in the same order.
    pub fn frozen(&self) -> Range<usize> {
        self.frozen.clone()
    }

    /// Tells layouts apart.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

impl Slot {
    /// Writes zeros for all that an optimizer stores. The slot is the caller's alone and invalid.
    pub fn clear_planes(&self) {
        for region in self.layout().regions().filter(|r| matches!(r, Region::Plane(_))) {
            // SAFETY: the caller has said that nobody else has the slot.
            unsafe { self.region(region).as_mut_slice::<u8>() }.fill(0);
        }
    }
}

fn saved_states(variables: &Variables, layout: &Layout) -> Vec<SavedState> {
    let mut end = 0;
    let mut saved = Vec::new();
    for (i, state) in variables.states().iter().enumerate() {
        if state.usage == StateUse::Replicated {
            let (start, bytes) = (layout.states[i], state.bytes());
            saved.push(SavedState {
                state: StateId(i),
                device: start..start + bytes,
                slot: end..end + bytes,
            });
            end += bytes.next_multiple_of(octet_kernels::memory::REGION_ALIGNMENT);
        }
    }
    saved
}
