//! The reducer: what a step moves between ranks, in step-plan order.
//!
//! Gradients travel as fp32 pieces of shards: all-to-all, then a local sum in the one fixed tree of
//! lanes (DESIGN section 4). Where the sum ends: the own shard of gradient buffer 0.
//!
//! Ownership: the way to the other ranks, and the staging memory. Order is in the step plan.

use std::cell::RefCell;

use octet_kernels::collectives::{Communicator, RANKS_MAX};
use octet_kernels::dtype::DType;
use octet_kernels::error::Result;
use octet_kernels::graph::StateUse;
use octet_kernels::memory::{DeviceSlice, Span};

use crate::engine::Engine;
use crate::rank_memory::Zero;

/// Most pieces of a lane tree: every lane on its own.
const PIECES_MAX: usize = RANKS_MAX;

/// The owner of the way to other ranks.
pub struct Reducer {
    communicator: RefCell<Box<dyn Communicator>>,
}

impl Reducer {
    /// A reducer over this way.
    pub fn new(communicator: Box<dyn Communicator>) -> Self {
        Self { communicator: communicator.into() }
    }

    /// For nodes of programs that meet other ranks.
    pub(crate) fn communicator(&self) -> &RefCell<Box<dyn Communicator>> {
        &self.communicator
    }

    /// Sums a bucket whose gradients are final.
    pub(crate) fn reduce(&self, engine: &Engine, bucket: usize) -> Result<()> {
        let memory = &engine.memory;
        let (rank, ranks, pieces) = (memory.rank, memory.ranks, &memory.pieces[..]);
        let own_piece = |buffer| pieces.iter().position(|p| p.rank == rank && p.buffer == buffer);
        let own = memory.owners.shard(bucket, rank);
        let empty = engine.gradient(0, &(own.start..own.start));
        let staging = engine.slice(memory.staging);
        let mut places = [empty; PIECES_MAX];
        let mut staged = 0;
        for (place, piece) in places.iter_mut().zip(pieces) {
            *place = if piece.rank == rank {
                engine.gradient(piece.buffer, &own)
            } else {
                staged += own.len() * size_of::<f32>();
                staging.part(staged - own.len() * size_of::<f32>(), own.len() * size_of::<f32>())
            };
        }
        let mut communicator = self.communicator.borrow_mut();
        for round in 0..memory.rounds {
            let mut send = [empty; RANKS_MAX];
            let mut receive = [empty; RANKS_MAX];
            if own_piece(round).is_some() {
                for (peer, part) in send[..ranks].iter_mut().enumerate() {
                    *part = engine.gradient(round, &memory.owners.shard(bucket, peer));
                }
            }
            for (place, piece) in places.iter().zip(pieces) {
                if piece.buffer == round {
                    receive[piece.rank] = *place;
                }
            }
            // SAFETY: the bucket is final, so nobody writes it; staging is this rank's alone; the
            // own part is already in place.
            unsafe { communicator.all_to_all(&send[..ranks], &receive[..ranks]) }?;
        }
        let output = places[own_piece(0).expect("a rank is left with at least one piece")];
        // SAFETY: as above; the output is one of the pieces.
        unsafe {
            communicator.join(&memory.join_tree, DType::F32, &places[..pieces.len()], output)
        }?;
        if memory.zero == Zero::Zero0 {
            // Gradient buffer 0 of the bucket belongs to the reducer until the update.
            drop(communicator);
            let shard = |rank| engine.gradient(0, &memory.owners.shard(bucket, rank));
            self.gather_in_place(engine, shard)?;
        }
        Ok(())
    }

    /// All-gathers within the step region, parts by rank.
    pub(crate) fn gather(&self, engine: &Engine, parts: &[Span]) -> Result<()> {
        let region = engine.slice(engine.memory.step);
        self.gather_in_place(engine, |rank| region.part(parts[rank].offset, parts[rank].bytes))
    }

    /// Broadcasts within the step region.
    pub(crate) fn broadcast(&self, engine: &Engine, root: usize, span: Span) -> Result<()> {
        let buffer = engine.slice(engine.memory.step).part(span.offset, span.bytes);
        // SAFETY: the step plan lets nobody touch the buffer meanwhile.
        unsafe { self.communicator.borrow_mut().broadcast(root, buffer) }
    }

    /// Sums the step's integer states.
    pub(crate) fn sum_states(&self, engine: &Engine) -> Result<()> {
        let states = engine.slice(engine.memory.states);
        let staging = engine.slice(engine.memory.staging);
        let offsets = &engine.workload.layout().states;
        let mut communicator = self.communicator.borrow_mut();
        for (state, &offset) in engine.workload.variables().states().iter().zip(offsets) {
            if state.usage == StateUse::StepSum {
                let buffer: DeviceSlice = states.part(offset, state.bytes());
                // SAFETY: no program runs between two entries of the plan; integer sums are exact.
                unsafe { communicator.all_reduce(DType::I32, buffer, staging) }?;
            }
        }
        Ok(())
    }

    /// Gathers the sums of squares of all blocks, and with them who overflowed.
    pub(crate) fn gather_squares(&self, engine: &Engine) -> Result<()> {
        let memory = &engine.memory;
        let cells = |rank: usize| engine.slice(memory.norm_cells(&memory.norm.parts[rank]));
        self.gather_in_place(engine, cells)
    }

    /// Gathers a bucket's fresh parameters.
    pub(crate) fn gather_parameters(&self, engine: &Engine, bucket: usize) -> Result<()> {
        let shard = |rank| engine.stored(bucket, &engine.memory.owners.shard(bucket, rank));
        self.gather_in_place(engine, shard)
    }

    /// All-gathers parts that lie at the same places on every rank.
    fn gather_in_place(&self, engine: &Engine, part: impl Fn(usize) -> DeviceSlice) -> Result<()> {
        let (ranks, rank) = (engine.memory.ranks, engine.memory.rank);
        let mut parts = [part(rank); RANKS_MAX];
        for (peer, slice) in parts[..ranks].iter_mut().enumerate() {
            *slice = part(peer);
        }
        // SAFETY: in the order of the step plan nobody touches the parts until the gather is
        // complete.
        unsafe { self.communicator.borrow_mut().all_gather(parts[rank], &parts[..ranks]) }
    }
}
