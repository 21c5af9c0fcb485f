//! The worker: one device's programs. It runs nodes and folds gradient buffers.
//!
//! It decides nothing: the step plan says what runs, in which order, on which record.

use half::{bf16, f16};
use octet_kernels::device::RunArguments;
use octet_kernels::dtype::DType;
use octet_kernels::error::{Error, Result};
use octet_kernels::graph::{ParameterId, Program, RunContext, StateUse};

use crate::contract::{ProgramId, Results};
use crate::engine::Engine;
use crate::fault::Fault;
use crate::rank_memory::METRIC_BYTES;
use crate::step_plan::{Keep, Load, Run};

/// The worker's protocol, as entries of a step plan come up.
#[derive(Debug)]
pub enum WorkerMessage<'p> {
    /// Zero the step's sums and the overflow flag.
    Begin,
    /// Zero gradients of these parameters in a buffer.
    Zero(usize, &'p [ParameterId]),
    /// Copy a record in, for this step.
    Load(&'p Load, &'p [u8], u64),
    /// Run nodes.
    Run(&'p Run),
    /// Keep the scalars that a run fetched.
    Keep(&'p Keep),
    /// Run a whole program outside a step's micro-batches, for this step.
    Forward(ProgramId, Option<&'p [u8]>, u64),
    /// `into += from` over flat elements.
    Fold(usize, usize, std::ops::Range<usize>),
}

/// The actor. Its state is the arena, which it alone computes in.
#[derive(Debug, Default)]
pub struct Worker;

impl Worker {
    /// Takes one message to its end.
    ///
    /// # Errors
    /// A fault of the world from the device, or from an op that meets other devices.
    pub fn apply(&mut self, engine: &Engine, message: WorkerMessage<'_>) -> Result<(), Fault> {
        match message {
            WorkerMessage::Begin => begin(engine),
            WorkerMessage::Zero(buffer, parameters) => zero(engine, buffer, parameters),
            WorkerMessage::Load(load, record, step) => {
                let first_sample = engine.workload.first_sample(step, load.micro_batch);
                let arguments = RunArguments { step, first_sample };
                let program = &engine.workload.programs()[load.program.0];
                upload(engine, program, Some(record), arguments)
            }
            WorkerMessage::Run(run) => run_nodes(engine, run),
            WorkerMessage::Keep(keep) => keep_scalars(engine, keep),
            WorkerMessage::Forward(program, record, step) => forward(engine, program, record, step),
            WorkerMessage::Fold(into, from, elements) => {
                let [into, from] = [into, from].map(|buffer| engine.gradient(buffer, &elements));
                // SAFETY: two different gradient buffers of this rank, in the order of the plan.
                unsafe { engine.device.add_into(into, from) }
            }
        }
        .map_err(|e| engine.fault(e))
    }
}

fn begin(engine: &Engine) -> Result<()> {
    let states = engine.slice(engine.memory.states);
    let layout = engine.workload.layout();
    for (state, &offset) in engine.workload.variables().states().iter().zip(&layout.states) {
        if state.usage == StateUse::StepSum {
            // SAFETY: memory of this rank, in the order of the plan.
            unsafe { engine.device.clear(states.part(offset, state.bytes())) }?;
        }
    }
    // SAFETY: as above.
    unsafe { engine.device.clear(engine.slice(engine.memory.overflow())) }
}

fn zero(engine: &Engine, buffer: usize, parameters: &[ParameterId]) -> Result<()> {
    for id in parameters {
        let placement = engine.workload.layout().placements[id.0];
        let elements = placement.start..placement.start + placement.elements;
        // SAFETY: as in `begin`.
        unsafe { engine.device.clear(engine.gradient(buffer, &elements)) }?;
    }
    Ok(())
}

fn upload(
    engine: &Engine,
    program: &Program,
    record: Option<&[u8]>,
    arguments: RunArguments,
) -> Result<()> {
    let (device, memory) = (&engine.device, &engine.memory);
    let input = engine.slice(memory.input.part(0, program.input_bytes));
    // SAFETY: as in `begin`.
    unsafe {
        if let Some(record) = record {
            device.upload(&record[..program.input_bytes], input)?;
        }
        device.upload(bytemuck::bytes_of(&arguments), engine.slice(memory.arguments))
    }
}

fn run_nodes(engine: &Engine, run: &Run) -> Result<()> {
    let program = &engine.workload.programs()[run.program.0];
    let context = RunContext {
        seed: engine.workload.seed(),
        slice: run.slice,
        first_in_lane: &run.first_in_lane,
        communicator: Some(&engine.communicator),
    };
    // SAFETY: as in `begin`; the regions are those that all programs were compiled for.
    unsafe { engine.device.run(program, &engine.bindings(run.buffer), &context, run.nodes.clone()) }
}

fn keep_scalars(engine: &Engine, keep: &Keep) -> Result<()> {
    let program = &engine.workload.programs()[keep.program.0];
    let (memory, bindings) = (&engine.memory, engine.bindings(0));
    let scalars = program.fetches().filter(|(_, spec)| spec.bytes() == METRIC_BYTES);
    for (column, (name, _)) in scalars.enumerate() {
        let value = program.fetched(name, &bindings, keep.slice)?;
        let cell = (keep.row * memory.columns + column) * METRIC_BYTES;
        // SAFETY: as in `begin`; the table and the fetched tensor are different regions.
        unsafe {
            engine.device.copy(value, engine.slice(memory.metrics.part(cell, METRIC_BYTES)))
        }?;
    }
    Ok(())
}

fn forward(engine: &Engine, program: ProgramId, record: Option<&[u8]>, step: u64) -> Result<()> {
    let program = &engine.workload.programs()[program.0];
    if !program.meetings().is_empty() {
        let what = "meets other ranks, which only a step's micro-batches do";
        return Err(Error::Plan(format!("program {} {what}", program.name)));
    }
    upload(engine, program, record, RunArguments { step, first_sample: 0 })?;
    let context = RunContext {
        seed: engine.workload.seed(),
        slice: 0,
        first_in_lane: &[],
        communicator: Some(&engine.communicator),
    };
    engine.wait_for_parameters();
    // SAFETY: as in `run_nodes`.
    unsafe { engine.device.run(program, &engine.bindings(0), &context, 0..program.nodes()) }
}

/// What the last forward run of a program fetched.
pub struct Fetched<'e> {
    /// The rank's device.
    pub engine: &'e Engine,
    /// The program that ran.
    pub program: ProgramId,
}

impl Fetched<'_> {
    /// From an element of a result, as [`Results::read`] gives it, to its number.
    pub(crate) fn number(&self, name: &str) -> impl Fn(&f32) -> f64 {
        let program = &self.engine.workload.programs()[self.program.0];
        let mut fetches = program.fetches();
        let whole = fetches.any(|(of, spec)| of == name && spec.dtype == DType::I32);
        move |value| match whole {
            true => f64::from(value.to_bits().cast_signed()),
            false => f64::from(*value),
        }
    }
}

impl Results for Fetched<'_> {
    fn read(&self, name: &str, into: &mut Vec<f32>) -> Result<(), Fault> {
        let program = &self.engine.workload.programs()[self.program.0];
        let found = program.fetched(name, &self.engine.bindings(0), 0);
        let slice = found.map_err(|e| Fault::ours(self.engine.name(), e))?;
        let dtype = program.fetches().find(|(of, _)| *of == name).map_or(DType::F32, |f| f.1.dtype);
        let elements = slice.bytes() / dtype.bytes();
        into.resize(elements, 0.0);
        let download = |bytes: &mut [u8]| {
            // SAFETY: the run is over, and no other begins meanwhile.
            unsafe { self.engine.device.download(slice, bytes) }.map_err(|e| self.engine.fault(e))
        };
        if dtype.bytes() == size_of::<f32>() {
            return download(bytemuck::cast_slice_mut(into));
        }
        let mut narrow = vec![0u16; elements];
        download(bytemuck::cast_slice_mut(&mut narrow))?;
        let widen = |bits| match dtype {
            DType::Bf16 => Ok(bf16::from_bits(bits).to_f32()),
            DType::F16 => Ok(f16::from_bits(bits).to_f32()),
            _ => Err(Fault::ours(self.engine.name(), format!("{name} is {dtype}, not a result"))),
        };
        for (value, bits) in into.iter_mut().zip(narrow) {
            *value = widen(bits)?;
        }
        Ok(())
    }
}
