//! The reducer: what a step moves between ranks, in step-plan order.
//!
//! Gradients travel as fp32 pieces of shards: all-to-all, then a local sum in the one fixed tree of
//! lanes (DESIGN section 4). Where the sum ends: the own shard of gradient buffer 0.

use octet_kernels::collectives::RANKS_MAX;
use octet_kernels::dtype::DType;
use octet_kernels::error::Result;
use octet_kernels::graph::StateUse;
use octet_kernels::memory::{DeviceSlice, Span};

use crate::engine::Engine;
use crate::fault::Fault;
use crate::rank_memory::Zero;

/// The reducer's protocol.
#[derive(Debug)]
pub enum ReducerMessage<'p> {
    /// Sum a bucket whose gradients are final.
    Reduce(usize),
    /// All-gather within the step region, parts by rank.
    Gather(&'p [Span]),
    /// Broadcast within the step region.
    Broadcast(usize, Span),
    /// Sum the step's integer states.
    SumStates,
    /// Gather the sums of squares of all blocks.
    GatherSquares,
    /// Gather a bucket's fresh parameters.
    GatherParameters(usize),
}

/// Most pieces of a lane tree: every lane on its own.
const PIECES_MAX: usize = RANKS_MAX;

/// The actor. It keeps nothing between messages: order is in the step plan.
#[derive(Debug, Default)]
pub struct Reducer;

impl Reducer {
    /// Takes one message to its end.
    ///
    /// # Errors
    /// A fault of the world when another rank left or took too long.
    pub fn apply(&mut self, engine: &Engine, message: ReducerMessage<'_>) -> Result<(), Fault> {
        match message {
            ReducerMessage::Reduce(bucket) => reduce(engine, bucket),
            ReducerMessage::Gather(parts) => gather(engine, parts),
            ReducerMessage::Broadcast(root, span) => {
                let region = engine.slice(engine.memory.step);
                let buffer = region.part(span.offset, span.bytes);
                let mut communicator = engine.communicator.borrow_mut();
                // SAFETY: the step plan lets nobody touch the buffer until the next entry.
                unsafe { communicator.broadcast(root, buffer) }
            }
            ReducerMessage::SumStates => sum_states(engine),
            ReducerMessage::GatherSquares => gather_in_place(engine, |rank| {
                let memory = &engine.memory;
                engine.slice(memory.norm_cells(&memory.norm.parts[rank]))
            }),
            ReducerMessage::GatherParameters(bucket) => {
                let layout = engine.workload.layout();
                let ranks = engine.memory.ranks;
                gather_in_place(engine, |rank| {
                    engine.stored(bucket, &layout.shard(bucket, rank, ranks))
                })
            }
        }
        .map_err(|e| engine.fault(e))
    }
}

fn reduce(engine: &Engine, bucket: usize) -> Result<()> {
    let (memory, layout) = (&engine.memory, engine.workload.layout());
    let (rank, ranks, pieces) = (memory.rank, memory.ranks, &memory.pieces[..]);
    let own_piece = |buffer| pieces.iter().position(|p| p.rank == rank && p.buffer == buffer);
    let own = layout.shard(bucket, rank, ranks);
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
    let mut communicator = engine.communicator.borrow_mut();
    for round in 0..memory.rounds {
        let mut send = [empty; RANKS_MAX];
        let mut receive = [empty; RANKS_MAX];
        if own_piece(round).is_some() {
            for (peer, part) in send[..ranks].iter_mut().enumerate() {
                *part = engine.gradient(round, &layout.shard(bucket, peer, ranks));
            }
        }
        for (place, piece) in places.iter().zip(pieces) {
            if piece.buffer == round {
                receive[piece.rank] = *place;
            }
        }
        // SAFETY: the bucket is final, so nobody writes it; staging is this rank's alone; the own
        // part is already in place.
        unsafe { communicator.all_to_all(&send[..ranks], &receive[..ranks]) }?;
    }
    let output = places[own_piece(0).expect("a rank is left with at least one piece")];
    // SAFETY: as above; the output is one of the pieces.
    unsafe { communicator.join(&memory.join_tree, DType::F32, &places[..pieces.len()], output) }?;
    if memory.zero == Zero::Zero0 {
        // Gradient buffer 0 of the bucket belongs to the reducer until the update.
        drop(communicator);
        gather_in_place(engine, |rank| engine.gradient(0, &layout.shard(bucket, rank, ranks)))?;
    }
    Ok(())
}

/// All-gathers parts that lie at the same places on every rank.
fn gather_in_place(engine: &Engine, part: impl Fn(usize) -> DeviceSlice) -> Result<()> {
    let (ranks, rank) = (engine.memory.ranks, engine.memory.rank);
    let mut parts = [part(rank); RANKS_MAX];
    for (peer, slice) in parts[..ranks].iter_mut().enumerate() {
        *slice = part(peer);
    }
    // SAFETY: in the order of the step plan nobody touches the parts until the gather is complete.
    unsafe { engine.communicator.borrow_mut().all_gather(parts[rank], &parts[..ranks]) }
}

fn gather(engine: &Engine, parts: &[Span]) -> Result<()> {
    let region = engine.slice(engine.memory.step);
    gather_in_place(engine, |rank| region.part(parts[rank].offset, parts[rank].bytes))
}

fn sum_states(engine: &Engine) -> Result<()> {
    let states = engine.slice(engine.memory.states);
    let staging = engine.slice(engine.memory.staging);
    let offsets = &engine.workload.layout().states;
    let mut communicator = engine.communicator.borrow_mut();
    for (state, &offset) in engine.workload.variables().states().iter().zip(offsets) {
        if state.usage == StateUse::StepSum {
            let buffer: DeviceSlice = states.part(offset, state.bytes());
            // SAFETY: no program runs between two entries of the plan; integer sums are exact.
            unsafe { communicator.all_reduce(DType::I32, buffer, staging) }?;
        }
    }
    Ok(())
}
