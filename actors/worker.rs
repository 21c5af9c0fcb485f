//! The worker: one device's arena, streams and programs. It runs nodes and folds gradient buffers.
//!
//! It decides nothing: the step plan says what runs, in which order, on which record.

use std::cell::RefCell;
use std::sync::Arc;

use octet_kernels::collectives::Communicator;
use octet_kernels::cpu::CpuDevice;
use octet_kernels::graph::{ParameterId, Program, RunContext, StateUse};
use octet_kernels::memory::{Arena, DeviceSlice};
use octet_kernels::ops::fold::add_into;

use crate::contract::{ProgramId, Results, Workload};
use crate::fault::{ActorName, Fault};
use crate::rank_memory::{METRIC_BYTES, RankMemory};
use crate::step_plan::Run;

/// The worker's protocol, as entries of a step plan come up.
#[derive(Debug)]
pub enum WorkerMessage<'p> {
    /// Zero the step's sums and the overflow flag.
    Begin,
    /// Zero gradients of these parameters in a buffer.
    Zero(usize, &'p [ParameterId]),
    /// Run nodes of a step over a record.
    Run(&'p Run, &'p [u8], u64),
    /// Run a whole program outside a step's micro-batches.
    Forward(ProgramId, Option<&'p [u8]>, u64),
    /// `into += from` over flat elements.
    Fold(usize, usize, std::ops::Range<usize>),
}

/// What worker, reducer and optimizer of one rank share: the device and its memory.
pub struct Engine {
    /// What is trained.
    pub workload: Arc<dyn Workload>,
    /// Where everything lies.
    pub memory: RankMemory,
    /// The bytes.
    pub arena: Arena,
    /// What computes.
    pub device: CpuDevice,
    /// The way to other ranks.
    pub communicator: RefCell<Box<dyn Communicator>>,
}

impl Engine {
    /// Who reports.
    pub fn name(&self) -> ActorName {
        ActorName::Rank(self.memory.rank)
    }

    /// A failed kernel or collective as a fault of the world.
    pub fn fault(&self, error: impl std::fmt::Display) -> Fault {
        Fault::world(self.name(), error)
    }
}

/// The actor. Its state is the arena, which it alone computes in.
#[derive(Debug, Default)]
pub struct Worker;

impl Worker {
    /// Takes one message to its end.
    ///
    /// # Errors
    /// A fault of the world from an op that meets other devices.
    pub fn apply(&mut self, engine: &Engine, message: WorkerMessage<'_>) -> Result<(), Fault> {
        match message {
            WorkerMessage::Begin => begin(engine),
            WorkerMessage::Zero(buffer, parameters) => zero(engine, buffer, parameters),
            WorkerMessage::Run(run, record, step) => return run_nodes(engine, run, record, step),
            WorkerMessage::Forward(program, record, step) => {
                return forward(engine, program, record, step);
            }
            WorkerMessage::Fold(into, from, elements) => {
                let [into, from] = [into, from]
                    .map(|buffer| engine.memory.gradient(&engine.arena, buffer, &elements));
                // SAFETY: two different gradient buffers of this rank, which nobody else touches
                // until the bucket is reduced.
                let (into, from) = unsafe { (into.as_mut_slice(), from.as_slice()) };
                add_into(&engine.device, into, from);
            }
        }
        Ok(())
    }
}

fn begin(engine: &Engine) {
    let states = engine.arena.slice(engine.memory.states);
    let layout = engine.workload.layout();
    for (state, &offset) in engine.workload.variables().states().iter().zip(&layout.states) {
        if state.usage == StateUse::StepSum {
            clear(states.part(offset, state.bytes()));
        }
    }
    clear(engine.arena.slice(engine.memory.overflow));
}

fn zero(engine: &Engine, buffer: usize, parameters: &[ParameterId]) {
    for id in parameters {
        let placement = engine.workload.layout().placements[id.0];
        let elements = placement.start..placement.start + placement.elements;
        clear(engine.memory.gradient(&engine.arena, buffer, &elements));
    }
}

fn clear(slice: DeviceSlice) {
    // SAFETY: memory of this rank's arena, on this rank's thread.
    unsafe { slice.as_mut_slice::<u8>() }.fill(0);
}

fn load(engine: &Engine, program: &Program, record: &[u8]) {
    let input = engine.arena.slice(engine.memory.input.part(0, program.input_bytes));
    // SAFETY: as in `clear`.
    unsafe { input.as_mut_slice::<u8>() }.copy_from_slice(&record[..program.input_bytes]);
}

fn run_nodes(engine: &Engine, run: &Run, record: &[u8], step: u64) -> Result<(), Fault> {
    let program = &engine.workload.programs()[run.program.0];
    if run.load {
        load(engine, program, record);
    }
    let bindings = engine.memory.bindings(&engine.arena, run.buffer);
    let context = RunContext {
        seed: engine.workload.seed(),
        step,
        first_sample: engine.workload.first_sample(step, run.micro_batch),
        slice: run.slice,
        first_in_lane: &run.first_in_lane,
        communicator: Some(&engine.communicator),
    };
    program
        .run_cpu(&engine.device, &bindings, &context, run.nodes.clone())
        .map_err(|e| engine.fault(e))?;
    let Some(row) = run.row else { return Ok(()) };
    let table = engine.arena.slice(engine.memory.metrics);
    let scalars = program.fetches().filter(|(_, spec)| spec.bytes() == METRIC_BYTES);
    for (column, (name, _)) in scalars.enumerate() {
        let value = program.fetched(name, &bindings, run.slice).map_err(|e| engine.fault(e))?;
        let cell = (row * engine.memory.columns + column) * METRIC_BYTES;
        // SAFETY: as in `clear`; the table and the fetched tensor are different regions.
        unsafe {
            let cell = table.part(cell, METRIC_BYTES).as_mut_slice::<u8>();
            cell.copy_from_slice(value.as_slice());
        }
    }
    Ok(())
}

fn forward(
    engine: &Engine,
    program: ProgramId,
    record: Option<&[u8]>,
    step: u64,
) -> Result<(), Fault> {
    let program = &engine.workload.programs()[program.0];
    if let Some(record) = record {
        load(engine, program, record);
    }
    let bindings = engine.memory.bindings(&engine.arena, 0);
    let context = RunContext {
        seed: engine.workload.seed(),
        step,
        first_sample: 0,
        slice: 0,
        first_in_lane: &[],
        communicator: Some(&engine.communicator),
    };
    program
        .run_cpu(&engine.device, &bindings, &context, 0..program.nodes())
        .map_err(|e| engine.fault(e))
}

/// What the last forward run of a program fetched, read where it lies.
pub struct Fetched<'e> {
    /// The rank's device.
    pub engine: &'e Engine,
    /// The program that ran.
    pub program: ProgramId,
}

impl Results for Fetched<'_> {
    fn floats(&self, name: &str) -> Result<&[f32], Fault> {
        let program = &self.engine.workload.programs()[self.program.0];
        let bindings = self.engine.memory.bindings(&self.engine.arena, 0);
        let found = program.fetched(name, &bindings, 0);
        let slice = found.map_err(|e| Fault::ours(self.engine.name(), e))?;
        // SAFETY: the run is over, and no other begins while this is borrowed.
        Ok(unsafe { slice.as_slice() })
    }
}
