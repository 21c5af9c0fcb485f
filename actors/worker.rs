//! The worker: one device's programs. It runs nodes and folds gradient buffers.
//!
//! Ownership: what programs run in, parameters and gradients by unit, states, step buffers,
//! records, activations and the table of what they fetched. It decides nothing: the step plan says
//! what runs, in which order, on which record.

use std::cell::RefCell;
use std::ops::Range;

use half::{bf16, f16};
use octet_kernels::collectives::Communicator;
use octet_kernels::device::RunArguments;
use octet_kernels::dtype::DType;
use octet_kernels::error::{Error, Result};
use octet_kernels::graph::{Bindings, ParameterId, Program, RunContext, StateUse};
use octet_kernels::memory::{DeviceSlice, HostSlice};
use octet_kernels::ops::Stream;

use crate::contract::{ProgramId, Results};
use crate::engine::Engine;
use crate::fault::Fault;
use crate::rank::StepNumbers;
use crate::rank_memory::{INPUTS, METRIC_BYTES};
use crate::step_plan::{Keep, Load, Run};

/// The way to other ranks, for nodes that meet them.
type Way = RefCell<Box<dyn Communicator>>;

/// The owner of what programs run in.
#[derive(Debug)]
pub struct Worker {
    /// By unit.
    parameters: Vec<DeviceSlice>,
    /// By gradient buffer, then by unit.
    gradients: Vec<Vec<DeviceSlice>>,
}

impl Worker {
    /// The worker of an engine.
    pub fn new(engine: &Engine) -> Self {
        let (memory, layout) = (&engine.memory, engine.workload.layout());
        let by_unit = |&buffer| layout.gradients_by_unit(engine.slice(buffer));
        Self {
            parameters: layout.parameters_by_unit(engine.slice(memory.parameters)),
            gradients: memory.gradients.iter().map(by_unit).collect(),
        }
    }

    /// What a program's run is given; gradients go to `buffer`, records come as run `row` of a
    /// step.
    fn bindings(&self, engine: &Engine, buffer: usize, row: usize) -> Bindings<'_> {
        let memory = &engine.memory;
        Bindings {
            parameters: &self.parameters,
            gradients: &self.gradients[buffer],
            states: engine.slice(memory.states),
            step: engine.slice(memory.step),
            input: engine.slice(memory.input[row % INPUTS]),
            activations: engine.slice(memory.activations),
            libraries: engine.slice(memory.libraries),
            overflow: engine.slice(memory.overflow()),
            arguments: engine.slice(memory.arguments[row % INPUTS]),
        }
    }

    /// Zeroes the step's sums and the overflow flag.
    pub(crate) fn begin(&self, engine: &Engine) -> Result<()> {
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

    /// Zeroes gradients that no run of a lane writes.
    pub(crate) fn zero(&self, engine: &Engine, buffer: usize, of: &[ParameterId]) -> Result<()> {
        for id in of {
            let placement = engine.workload.layout().placements[id.0];
            let elements = placement.start..placement.start + placement.elements;
            // SAFETY: as in `begin`.
            unsafe { engine.device.clear(engine.gradient(buffer, &elements)) }?;
        }
        Ok(())
    }

    /// Copies a record in, and the arguments of the runs over it.
    pub(crate) fn load(
        &self,
        engine: &Engine,
        load: &Load,
        record: &[u8],
        numbers: &StepNumbers,
    ) -> Result<()> {
        // Noise belongs to the samples that are seen, whichever step sees them.
        let first_sample = engine.workload.first_sample(numbers.batch, load.micro_batch);
        let bytes = engine.workload.programs()[load.program.0].input_bytes;
        let (device, memory) = (&engine.device, &engine.memory);
        let input = engine.slice(memory.input[load.row % INPUTS].part(0, bytes));
        let arguments = engine.slice(memory.arguments[load.row % INPUTS]);
        let given = RunArguments { step: numbers.step, first_sample };
        // SAFETY: as in `begin`; the record stays as it is until the step is over.
        unsafe {
            device.copy_in(Stream::CopyIn, HostSlice::of(&record[..bytes]), input)?;
            device.set_arguments(Stream::CopyIn, given, arguments)
        }
    }

    /// Runs nodes.
    pub(crate) fn run(&self, engine: &Engine, run: &Run, way: &Way) -> Result<()> {
        let program = &engine.workload.programs()[run.program.0];
        let context = RunContext {
            seed: engine.workload.seed(),
            slice: run.slice,
            first_in_lane: &run.first_in_lane,
            communicator: Some(way),
        };
        let bindings = self.bindings(engine, run.buffer, run.row);
        // SAFETY: as in `begin`; the regions are those that all programs were compiled for.
        unsafe { engine.device.run(program, &bindings, &context, run.nodes.clone()) }
    }

    /// Keeps the scalars that a run fetched.
    pub(crate) fn keep(&self, engine: &Engine, keep: &Keep) -> Result<()> {
        let program = &engine.workload.programs()[keep.program.0];
        let (memory, bindings) = (&engine.memory, self.bindings(engine, 0, keep.row));
        let scalars = program.fetches().filter(|(_, spec)| spec.bytes() == METRIC_BYTES);
        for (column, (name, _)) in scalars.enumerate() {
            let value = program.fetched(name, &bindings, keep.slice)?;
            let cell = (keep.row * memory.columns + column) * METRIC_BYTES;
            let cell = engine.slice(memory.metrics.part(cell, METRIC_BYTES));
            // SAFETY: as in `begin`; the table and the fetched tensor are different regions.
            unsafe { engine.device.copy(value, cell) }?;
        }
        Ok(())
    }

    /// Adds one gradient buffer to another: `into += from` over flat elements.
    pub(crate) fn fold(
        &self,
        engine: &Engine,
        into: usize,
        from: usize,
        elements: &Range<usize>,
    ) -> Result<()> {
        let [into, from] = [into, from].map(|buffer| engine.gradient(buffer, elements));
        // SAFETY: two different gradient buffers of this rank, in the order of the plan.
        unsafe { engine.device.add_into(into, from) }
    }

    /// Runs a program that ends a step, in the order of its plan.
    pub(crate) fn finally(
        &self,
        engine: &Engine,
        program: ProgramId,
        step: u64,
        way: &Way,
    ) -> Result<()> {
        let program = &engine.workload.programs()[program.0];
        let arguments = engine.slice(engine.memory.arguments[0]);
        let context = RunContext {
            seed: engine.workload.seed(),
            slice: 0,
            first_in_lane: &[],
            communicator: Some(way),
        };
        let (bindings, nodes) = (self.bindings(engine, 0, 0), 0..program.nodes());
        let given = RunArguments { step, first_sample: 0 };
        // SAFETY: as in `run`.
        unsafe {
            engine.device.set_arguments(Stream::Compute, given, arguments)?;
            engine.device.run(program, &bindings, &context, nodes)
        }
    }

    /// Runs a whole program outside a step's micro-batches, for this step.
    pub(crate) fn forward(
        &self,
        engine: &Engine,
        program: ProgramId,
        record: &[u8],
        step: u64,
        way: &Way,
    ) -> Result<()> {
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
            communicator: Some(way),
        };
        engine.wait_for_parameters()?;
        let nodes = 0..program.nodes();
        // SAFETY: as in `run`.
        unsafe { engine.device.run(program, &self.bindings(engine, 0, 0), &context, nodes) }
    }
}

fn upload(
    engine: &Engine,
    program: &Program,
    record: &[u8],
    arguments: RunArguments,
) -> Result<()> {
    let (device, memory) = (&engine.device, &engine.memory);
    let input = engine.slice(memory.input[0].part(0, program.input_bytes));
    // SAFETY: as in `begin`.
    unsafe {
        device.upload(&record[..program.input_bytes], input)?;
        device.upload(bytemuck::bytes_of(&arguments), engine.slice(memory.arguments[0]))
    }
}

/// What the last forward run of a program fetched.
pub struct Fetched<'e> {
    /// The rank's device.
    pub engine: &'e Engine,
    /// Who ran it.
    pub worker: &'e Worker,
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
        self.read_rows(name, usize::MAX, into)
    }

    fn read_rows(&self, name: &str, rows: usize, into: &mut Vec<f32>) -> Result<(), Fault> {
        let program = &self.engine.workload.programs()[self.program.0];
        let found = program.fetched(name, &self.worker.bindings(self.engine, 0, 0), 0);
        let slice = found.map_err(|e| Fault::ours(self.engine.name(), e))?;
        let spec = program.fetches().find(|(of, _)| *of == name).map(|(_, spec)| spec);
        let dtype = spec.map_or(DType::F32, |spec| spec.dtype);
        let mut elements = slice.bytes() / dtype.bytes();
        if let Some(spec) = spec {
            elements = elements.min(rows.saturating_mul(spec.columns()));
        }
        let slice = slice.part(0, elements * dtype.bytes());
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
