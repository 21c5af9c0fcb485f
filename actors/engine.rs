//! What worker, reducer and optimizer of one rank share: the device, and its memory by region.
//!
//! Ownership: belongs to the rank's one thread. Prohibition: nothing here reads or writes device
//! memory but through the device.

use std::ops::Range;
use std::sync::Arc;

use octet_kernels::device::Device;
use octet_kernels::error::{Error, Result};
use octet_kernels::memory::{Arena, DeviceSlice, Span};
use octet_kernels::ops::Stream;

use crate::contract::Workload;
use crate::fault::{ActorName, Fault};
use crate::rank_memory::RankMemory;
use crate::step_plan::Mark;

/// One rank's machine.
pub struct Engine {
    /// What is trained.
    pub workload: Arc<dyn Workload>,
    /// Where everything lies.
    pub memory: RankMemory,
    /// What computes.
    pub device: Box<dyn Device>,
    arena: Arena,
}

impl Engine {
    /// Takes the memory that was planned, and nothing later.
    ///
    /// # Errors
    /// From the device when there is not enough.
    pub fn new(
        workload: Arc<dyn Workload>,
        memory: RankMemory,
        device: Box<dyn Device>,
    ) -> Result<Self> {
        let arena = device.allocate(&memory.arena, memory.events())?;
        let order = bytemuck::cast_slice(&memory.norm.order);
        // SAFETY: the arena was just taken, and the region has the table's size.
        unsafe { device.upload(order, arena.slice(memory.norm_order)) }?;
        Ok(Self { workload, memory, device, arena })
    }

    /// Who reports.
    pub fn name(&self) -> ActorName {
        ActorName::Rank(self.memory.rank)
    }

    /// Bytes of the arena.
    pub fn arena_bytes(&self) -> usize {
        self.arena.bytes()
    }

    /// A failed kernel or collective as a fault.
    pub fn fault(&self, error: Error) -> Fault {
        Fault::of_device(self.name(), error)
    }

    /// A region, by address.
    pub fn slice(&self, span: Span) -> DeviceSlice {
        self.arena.slice(span)
    }

    /// Flat `F32` elements of a gradient buffer.
    pub fn gradient(&self, buffer: usize, elements: &Range<usize>) -> DeviceSlice {
        self.slice(self.memory.gradients[buffer].part(elements.start * 4, elements.len() * 4))
    }

    /// Parameters as they are stored: flat elements of one bucket.
    pub fn stored(&self, bucket: usize, elements: &Range<usize>) -> DeviceSlice {
        let bytes = self.workload.layout().parameter_span(bucket, elements);
        self.slice(self.memory.parameters.part(bytes.start, bytes.len()))
    }

    /// Kept `F32` masters: flat elements of one bucket.
    pub fn masters(&self, bucket: usize, elements: &Range<usize>) -> DeviceSlice {
        let first = self.memory.kept_place(bucket, elements);
        self.slice(self.memory.masters.part(first * 4, elements.len() * 4))
    }

    /// A kept part of plane number `plane` of the optimizer: flat elements of one bucket.
    pub fn plane(&self, plane: usize, bucket: usize, elements: &Range<usize>) -> DeviceSlice {
        let first = self.memory.kept_place(bucket, elements);
        let (plane, span) = &self.memory.planes[plane];
        self.slice(span.part(plane.bytes(first), plane.bytes(elements.len())))
    }

    /// Lets a stream wait for marks of other ones.
    ///
    /// # Errors
    /// From the device.
    pub fn wait(&self, stream: Stream, marks: &[Mark]) -> Result<()> {
        marks.iter().try_for_each(|mark| self.device.wait(stream, mark.event()))
    }

    /// Sets a mark where a stream stands.
    ///
    /// # Errors
    /// From the device.
    pub fn mark(&self, stream: Stream, mark: Option<Mark>) -> Result<()> {
        mark.map_or(Ok(()), |mark| self.device.record(mark.event(), stream))
    }

    /// Lets compute wait for all parameters of the last update.
    ///
    /// # Errors
    /// From the device.
    pub fn wait_for_parameters(&self) -> Result<()> {
        let mut buckets = 0..self.workload.layout().buckets.len();
        buckets.try_for_each(|bucket| self.wait(Stream::Compute, &[Mark::fresh(bucket)]))
    }
}
