//! Where every parameter lies in the flat vectors (parameters, gradients, master weights, moments),
//! and how those are cut.
//!
//! A *block* is what norms are summed by and where shards begin. A *bucket* is a run of blocks that
//! travels between ranks at once; its edges are block edges, so that no parameter is too large for
//! it. A *unit* is a run of buckets that holds whole parameters: what a program can be given an
//! address of.
//!
//! A pure function of the variables: ranks and ZeRO placement do not enter, so checkpoints, norms
//! and digests do not depend on them. DESIGN section 4, "Norm".

use std::ops::Range;

use crate::dtype::DType;
use crate::graph::variables::{ParameterId, State, StepBuffer, Variables};
use crate::memory::{DeviceSlice, REGION_ALIGNMENT};

/// Elements of a block: shards start at block edges, norms are summed block by block.
pub const BLOCK_ELEMENTS: usize = 64 * 1024;

/// Most elements of a bucket; a unit is closed at the first parameter that brings it to this size.
pub const BUCKET_ELEMENTS: usize = 64 * BLOCK_ELEMENTS;

/// Parameters start at multiples of this many elements, so that rows stay aligned for every dtype.
const PARAMETER_ALIGNMENT: usize = 64;

/// How finely the flat vectors are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granularity {
    /// Elements of a block.
    pub block: usize,
    /// Elements that close a unit, and most elements of a bucket: rounded up to whole blocks.
    pub bucket: usize,
}

impl Default for Granularity {
    fn default() -> Self {
        Self { block: BLOCK_ELEMENTS, bucket: BUCKET_ELEMENTS }
    }
}

/// Where one parameter lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// First element in the flat vectors; for a frozen parameter only `byte` means something.
    pub start: usize,
    /// Number of elements.
    pub elements: usize,
    /// Byte offset in the parameter region.
    pub byte: usize,
    /// The unit that it is gathered and bound with.
    pub unit: usize,
}

/// A run of whole parameters of one dtype, at consecutive addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Elements in the flat vectors, whole blocks; none for frozen parameters.
    pub elements: Range<usize>,
    /// Bytes in the parameter region.
    pub bytes: Range<usize>,
    /// The buckets that it consists of.
    pub buckets: Range<usize>,
}

/// A run of blocks whose gradients travel together, all of one dtype.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Elements in the flat vectors, whole blocks.
    pub elements: Range<usize>,
    /// Byte offset of its first element in the parameter region.
    pub byte: usize,
    /// Storage type of its parameters.
    pub dtype: DType,
    /// Those that have elements in it, in flat order.
    pub parameters: Vec<ParameterId>,
}

/// The flat layout of all parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// By parameter.
    pub placements: Vec<Placement>,
    /// In the order in which backward is expected to finish them.
    pub buckets: Vec<Bucket>,
    /// In the same order; the last one holds the frozen parameters.
    pub units: Vec<Unit>,
    /// Elements of a block.
    pub block: usize,
    /// Elements of the flat vectors: whole blocks.
    pub elements: usize,
    /// Bytes of the parameter region, frozen parameters included.
    pub parameter_bytes: usize,
    /// Byte offset of every state in the state region.
    pub states: Vec<usize>,
    /// Bytes of the state region.
    pub state_bytes: usize,
    /// Byte offset of every step buffer in the step region.
    pub step_buffers: Vec<usize>,
    /// Bytes of the step region.
    pub step_bytes: usize,
}

impl Layout {
    /// Lays out all parameters. Trainable ones come in the reverse of the order of creation, which
    /// is roughly the order in which backward finishes their gradients; frozen ones follow.
    pub fn new(variables: &Variables, granularity: Granularity) -> Self {
        let Granularity { block, bucket: bucket_elements } = granularity;
        let parameters = variables.parameters();
        let empty = Placement { start: 0, elements: 0, byte: 0, unit: 0 };
        let mut layout = Self {
            placements: vec![empty; parameters.len()],
            buckets: Vec::new(),
            units: Vec::new(),
            block,
            elements: 0,
            parameter_bytes: 0,
            states: Vec::new(),
            state_bytes: 0,
            step_buffers: Vec::new(),
            step_bytes: 0,
        };
        let state_bytes = variables.states().iter().map(State::bytes);
        (layout.states, layout.state_bytes) = offsets(state_bytes);
        let step_bytes = variables.step_buffers().iter().map(StepBuffer::bytes);
        (layout.step_buffers, layout.step_bytes) = offsets(step_bytes);
        let mut dtypes: Vec<DType> =
            parameters.iter().filter(|p| p.trainable).map(|p| p.dtype).collect();
        dtypes.sort_unstable();
        dtypes.dedup();
        for dtype in dtypes {
            let mut open: Vec<ParameterId> = Vec::new();
            let mut size = 0;
            for (i, p) in parameters.iter().enumerate().rev() {
                if !p.trainable || p.dtype != dtype {
                    continue;
                }
                open.push(ParameterId(i));
                size += p.elements().next_multiple_of(PARAMETER_ALIGNMENT);
                if size >= bucket_elements {
                    layout.close(std::mem::take(&mut open), dtype, variables, bucket_elements);
                    size = 0;
                }
            }
            if !open.is_empty() {
                layout.close(open, dtype, variables, bucket_elements);
            }
        }
        layout.place_frozen(variables);
        layout
    }

    fn place_frozen(&mut self, variables: &Variables) {
        let (first, unit) = (self.parameter_bytes, self.units.len());
        for (i, p) in variables.parameters().iter().enumerate().filter(|(_, p)| !p.trainable) {
            let byte = self.parameter_bytes;
            self.placements[i] = Placement { start: 0, elements: p.elements(), byte, unit };
            let bytes = p.elements() * p.dtype.bytes();
            self.parameter_bytes += bytes.next_multiple_of(PARAMETER_ALIGNMENT * 4);
        }
        let (bytes, buckets) = (first..self.parameter_bytes, self.buckets.len());
        self.units.push(Unit { elements: 0..0, bytes, buckets: buckets..buckets });
    }

    /// Makes a unit of these parameters, and its buckets.
    fn close(
        &mut self,
        members: Vec<ParameterId>,
        dtype: DType,
        variables: &Variables,
        bucket_elements: usize,
    ) {
        let (first, byte, unit) = (self.elements, self.parameter_bytes, self.units.len());
        let mut next = first;
        for &id in &members {
            let elements = variables.parameters()[id.0].elements();
            let byte = byte + (next - first) * dtype.bytes();
            self.placements[id.0] = Placement { start: next, elements, byte, unit };
            next += elements.next_multiple_of(PARAMETER_ALIGNMENT);
        }
        self.elements = first + (next - first).next_multiple_of(self.block);
        self.parameter_bytes += (self.elements - first) * dtype.bytes();
        let first_bucket = self.buckets.len();
        let step = bucket_elements.next_multiple_of(self.block);
        for start in (first..self.elements).step_by(step) {
            let elements = start..self.elements.min(start + step);
            let meets = |id: &&ParameterId| {
                let place = self.placements[id.0];
                place.start < elements.end && elements.start < place.start + place.elements
            };
            let parameters = members.iter().filter(meets).copied().collect();
            let byte = byte + (start - first) * dtype.bytes();
            self.buckets.push(Bucket { elements, byte, dtype, parameters });
        }
        self.units.push(Unit {
            elements: first..self.elements,
            bytes: byte..self.parameter_bytes,
            buckets: first_bucket..self.buckets.len(),
        });
    }

    /// The buckets in which a parameter has elements; none if it is frozen.
    pub fn buckets_of(&self, id: ParameterId) -> Range<usize> {
        let Unit { buckets, .. } = &self.units[self.placements[id.0].unit];
        let holds = |bucket: &usize| self.buckets[*bucket].parameters.contains(&id);
        let first = buckets.clone().find(holds).unwrap_or(buckets.end);
        let last = buckets.clone().rfind(holds).map_or(first, |last| last + 1);
        first..last
    }

    /// By unit: its part of a region of all parameters.
    pub fn parameters_by_unit(&self, region: DeviceSlice) -> Vec<DeviceSlice> {
        let part = |unit: &Unit| region.part(unit.bytes.start, unit.bytes.len());
        self.units.iter().map(part).collect()
    }

    /// By unit: its part of a region of all `F32` gradients.
    pub fn gradients_by_unit(&self, region: DeviceSlice) -> Vec<DeviceSlice> {
        let part = |unit: &Unit| region.part(unit.elements.start * 4, unit.elements.len() * 4);
        self.units.iter().map(part).collect()
    }

    /// Number of blocks of the flat vectors.
    pub fn blocks(&self) -> usize {
        self.elements / self.block
    }

    /// Byte range in the parameter region of flat elements of one bucket.
    pub fn parameter_span(&self, bucket: usize, elements: &Range<usize>) -> Range<usize> {
        let bucket = &self.buckets[bucket];
        let at = |e: usize| bucket.byte + (e - bucket.elements.start) * bucket.dtype.bytes();
        at(elements.start)..at(elements.end)
    }
}

/// Aligned offsets one after the other, and the end.
fn offsets(sizes: impl Iterator<Item = usize>) -> (Vec<usize>, usize) {
    let mut end = 0;
    let offsets = sizes
        .map(|bytes| {
            let offset = end;
            end += bytes.next_multiple_of(REGION_ALIGNMENT);
            offset
        })
        .collect();
    (offsets, end)
}
