//! How ops are tested: alone, on poisoned memory, against f64.
//!
//! Not part of a run. Public so that the other packages' tests can use it.

mod array;

pub use array::{Array, noise};

use crate::cpu::CpuDevice;
use crate::cpu::isa::Isa;
use crate::device::{Device, RunArguments};
use crate::dtype::DType;
use crate::emulator::{self, Schedule};
use crate::error::Result;
use crate::graph::{
    Bindings, Goal, Granularity, Graph, Init, Layout, Parameter, ParameterId, Policy, Program,
    RunContext, State, StateId, StateUse, Target, Tensor, Variables,
};
use crate::memory::DeviceSlice;
use crate::testing::array::{read, write};

/// Elements of operands up to which a trial is run a second and a third time.
const NARROW_MAX: usize = 100_000;

/// Share of the largest element by which roundings of several ops in a row may move a result.
const NARROW_ERROR: f32 = 1.0 / 32.0;

fn assert_near_in_bf16(wide: &Array, narrow: &Array, what: &str) {
    let (Array::Float(_, wide, _), Array::Float(_, narrow, _)) = (wide, narrow) else {
        return assert_eq!(wide, narrow, "{what}");
    };
    let finite = wide.iter().filter(|x| x.is_finite());
    let largest = finite.fold(0.0f32, |largest, x| largest.max(x.abs()));
    for (i, (&wide, &narrow)) in wide.iter().zip(narrow).enumerate() {
        let same = wide == narrow || wide.is_nan() && narrow.is_nan();
        let near = (wide - narrow).abs() <= largest * NARROW_ERROR;
        assert!(same || near, "element {i}: {narrow}, not {wide}, {what}");
    }
}

/// What a trace returns and what a trial fetches.
pub type Trace<'t> = &'t dyn Fn(&mut Graph<'_>, &[Tensor]) -> Result<Vec<Tensor>>;

/// Traces ops over inputs and runs them forward on memory full of NaN.
pub fn forward(inputs: &[Array], trace: Trace<'_>) -> Result<Vec<Array>> {
    Ok(Trial { inputs, ..Trial::default() }.run(trace)?.outputs)
}

/// The gradients with respect to every float input for the given gradients of the outputs.
pub fn gradients(inputs: &[Array], seeds: &[Array], trace: Trace<'_>) -> Result<Vec<Array>> {
    Ok(Trial { inputs, seeds: Some(seeds), ..Trial::default() }.run(trace)?.gradients)
}

/// One run of traced ops on memory full of NaN.
#[derive(Debug, Clone, Copy)]
pub struct Trial<'t> {
    /// Operands: floats are parameters, integers are inputs.
    pub inputs: &'t [Array],
    /// Contents of states, which the trace gets after the inputs.
    pub states: &'t [Array],
    /// Gradients of the first outputs; `None` runs forward only.
    pub seeds: Option<&'t [Array]>,
    /// Backward from the first output, an `f32` scalar that is the loss; instead of `seeds`.
    pub root: bool,
    /// Threads of the CPU device.
    pub threads: usize,
    /// Its instructions.
    pub isa: Isa,
    /// Step of the run.
    pub step: u64,
    /// Number of the first sample within the run.
    pub first_sample: u64,
    /// How the graph is compiled.
    pub policy: Policy,
    /// Whether the same must hold where floats are stored in bf16. False where it cannot: a result
    /// that jumps, or an operand that is `F32` by contract.
    pub narrow: bool,
    /// Whether it is not the first of its lane: gradients are added to what is there.
    pub later: bool,
    /// How kernels run, if the policy's target is a GPU.
    pub schedule: Schedule,
}

impl Default for Trial<'_> {
    fn default() -> Self {
        Self {
            inputs: &[],
            states: &[],
            seeds: None,
            root: false,
            threads: 2,
            isa: Isa::detect(),
            step: 0,
            first_sample: 0,
            policy: Policy::default(),
            narrow: true,
            later: false,
            schedule: Schedule::default(),
        }
    }
}

/// What a trial leaves.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What the trace returned.
    pub outputs: Vec<Array>,
    /// Gradients of the float inputs; NaN where nothing was written.
    pub gradients: Vec<Array>,
    /// The states afterwards.
    pub states: Vec<Array>,
    /// Whether an op said that a live extent would exceed its capacity.
    pub overflow: bool,
    /// The names of what ran, in order.
    pub ops: Vec<&'static str>,
    /// Asynchronous copies that kernels made.
    pub copies: u64,
}

impl Trial<'_> {
    /// Traces, compiles and runs; and holds the same in bf16 against it, see [`Self::narrow`].
    pub fn run(&self, trace: Trace<'_>) -> Result<Outcome> {
        let outcome = self.once(trace)?;
        let floats = self.inputs.iter().chain(self.seeds.unwrap_or_default());
        let all_f32 =
            floats.clone().all(|x| !matches!(x, Array::Float(_, _, d) if *d != DType::F32));
        if self.narrow && all_f32 && floats.map(Array::elements).sum::<usize>() < NARROW_MAX {
            self.hold_in_bf16(trace)?;
        }
        Ok(outcome)
    }

    /// The second column of a test: operands rounded to bf16 give the same whether they are stored
    /// so or in `F32`, up to the rounding of what is stored.
    fn hold_in_bf16(&self, trace: Trace<'_>) -> Result<()> {
        let rounded = |arrays: &[Array]| arrays.iter().map(Array::rounded).collect::<Vec<_>>();
        let stored = |arrays: &[Array]| arrays.iter().map(Array::narrowed).collect::<Vec<_>>();
        let (wide, narrow) = (rounded(self.inputs), stored(self.inputs));
        let (wide_seeds, narrow_seeds) = (self.seeds.map(rounded), self.seeds.map(stored));
        let wide = Trial { inputs: &wide, seeds: wide_seeds.as_deref(), ..*self }.once(trace)?;
        let narrow = Trial { inputs: &narrow, seeds: narrow_seeds.as_deref(), ..*self };
        let narrow = narrow.once(trace)?;
        assert_eq!(wide.overflow, narrow.overflow, "in bf16");
        let both = |outcome: &'_ Outcome| -> Vec<Array> {
            [&outcome.outputs[..], &outcome.gradients, &outcome.states].concat()
        };
        for (i, (wide, narrow)) in both(&wide).iter().zip(&both(&narrow)).enumerate() {
            assert_near_in_bf16(wide, narrow, &format!("in bf16, array {i}"));
        }
        Ok(())
    }

    /// Traces, compiles and runs: on the CPU, or emulated if the target is a GPU.
    pub(crate) fn once(&self, trace: Trace<'_>) -> Result<Outcome> {
        let device = CpuDevice::with_isa(self.threads, self.isa);
        self.with(trace, |program, bindings, context| {
            let nodes = 0..program.nodes();
            // SAFETY: the regions are the trial's, which nobody else uses.
            unsafe {
                match program.target {
                    Target::Cpu => device.run(program, bindings, context, nodes).map(|()| 0),
                    Target::Gpu(_) => {
                        emulator::run(program, bindings, context, nodes, &self.schedule)
                    }
                }
            }
        })
    }

    /// Traces, compiles and runs on a device that reaches the host's memory.
    ///
    /// # Errors
    /// Those of the trace, of [`Program::compile`] and of the device.
    pub fn on(&self, device: &dyn Device, trace: Trace<'_>) -> Result<Outcome> {
        self.with(trace, |program, bindings, context| {
            // SAFETY: the regions are the trial's, which nobody else uses.
            unsafe { device.run(program, bindings, context, 0..program.nodes()) }?;
            device.finish().map(|()| 0)
        })
    }

    /// What is left by `run`, which returns how many asynchronous copies it made.
    pub(crate) fn with(
        &self,
        trace: Trace<'_>,
        run: impl FnOnce(&Program, &Bindings<'_>, &RunContext<'_>) -> Result<u64>,
    ) -> Result<Outcome> {
        let (variables, ids) = self.variables();
        let layout = Layout::new(&variables, Granularity::default());
        let program = self.compile(&variables, &ids, &layout, trace)?;
        let mut memory = self.memory(&program, &layout, &ids);
        let (parameters, gradients) = memory.units(&layout);
        let bindings = memory.bindings(&parameters, &gradients);
        let context = RunContext {
            seed: 7,
            slice: 0,
            first_in_lane: &vec![!self.later; variables.parameters().len()],
            communicator: None,
        };
        let copies = run(&program, &bindings, &context)?;
        let mut outputs = Vec::new();
        for (name, spec) in program.fetches() {
            let slice = program.fetched(name, &bindings, 0)?;
            outputs.push(read(slice, &spec.shape, spec.dtype));
        }
        let flat = memory.gradients.as_slice();
        let gradient = |id: &ParameterId| {
            let p = layout.placements[id.0];
            let shape = &variables.parameters()[id.0].shape;
            Array::f32(shape, flat[p.start..p.start + p.elements].to_vec())
        };
        let gradients = ids.iter().flatten().map(gradient).collect();
        let state = |(s, &byte): (&State, &usize)| {
            read(bindings.states.part(byte, s.bytes()), &s.shape, s.dtype)
        };
        let states = variables.states().iter().zip(&layout.states).map(state).collect();
        let ops = program.costs().map(|node| node.op).collect();
        Ok(Outcome { outputs, gradients, states, overflow: memory.overflow[0] != 0, ops, copies })
    }

    /// Traces and compiles, for whichever target.
    ///
    /// # Errors
    /// Those of the trace and of [`Program::compile`].
    pub fn program(&self, trace: Trace<'_>) -> Result<Program> {
        let (variables, ids) = self.variables();
        let layout = Layout::new(&variables, Granularity::default());
        self.compile(&variables, &ids, &layout, trace)
    }

    fn variables(&self) -> (Variables, Vec<Option<ParameterId>>) {
        let mut variables = Variables::new();
        let mut parameter = |(i, array): (usize, &Array)| match array {
            Array::Int(..) => None,
            Array::Float(shape, _, dtype) => Some(variables.parameter(Parameter {
                name: format!("x{i}"),
                shape: shape.clone(),
                dtype: *dtype,
                trainable: true,
                decay: false,
                init: Init::Constant(0.0),
            })),
        };
        let ids = self.inputs.iter().enumerate().map(&mut parameter).collect();
        for (i, array) in self.states.iter().enumerate() {
            let (shape, dtype) = array.shape_and_dtype();
            let name = format!("s{i}");
            let usage = StateUse::Local;
            variables.state(State { name, shape: shape.to_vec(), dtype, usage, init: 0.0 });
        }
        (variables, ids)
    }

    fn compile(
        &self,
        variables: &Variables,
        ids: &[Option<ParameterId>],
        layout: &Layout,
        trace: Trace<'_>,
    ) -> Result<Program> {
        let mut g = Graph::new(variables);
        let mut tensors = Vec::new();
        for (i, (array, id)) in self.inputs.iter().zip(ids).enumerate() {
            tensors.push(match id {
                Some(id) => g.parameter(*id),
                None => g.input(&format!("x{i}"), array.shape_and_dtype().0, DType::I32),
            });
        }
        tensors.extend((0..self.states.len()).map(|i| g.state(StateId(i))));
        let outputs = trace(&mut g, &tensors)?;
        let mut goal = if self.root { Goal::Train { loss: outputs[0] } } else { Goal::Forward };
        if let Some(seeds) = self.seeds {
            let seeded = outputs.iter().zip(seeds).enumerate().map(|(i, (&output, seed))| {
                let (shape, dtype) = seed.shape_and_dtype();
                (output, g.input(&format!("seed{i}"), shape, dtype))
            });
            goal = Goal::Vjp { outputs: seeded.collect() };
        }
        for (i, &output) in outputs.iter().enumerate() {
            g.fetch(&format!("y{i}"), output);
        }
        Program::compile("trial", g, &goal, self.policy, layout)
    }

    fn memory(&self, program: &Program, layout: &Layout, ids: &[Option<ParameterId>]) -> Memory {
        let mut memory = Memory::new(program, layout);
        memory.arguments = [RunArguments { step: self.step, first_sample: self.first_sample }];
        if self.later {
            let there = noise(5, memory.gradients.len());
            memory.gradients.copy_from_slice(&there);
        }
        for (i, (array, id)) in self.inputs.iter().zip(ids).enumerate() {
            match id {
                Some(id) => store(&mut memory.parameters, layout.placements[id.0].byte, array),
                None => memory.fill_field(program, &format!("x{i}"), array),
            }
        }
        for (array, &byte) in self.states.iter().zip(&layout.states) {
            store(&mut memory.states, byte, array);
        }
        for (i, seed) in self.seeds.unwrap_or_default().iter().enumerate() {
            memory.fill_field(program, &format!("seed{i}"), seed);
        }
        memory
    }
}

struct Memory {
    parameters: Vec<u64>,
    gradients: Vec<f32>,
    states: Vec<u64>,
    step: Vec<u64>,
    input: Vec<u64>,
    activations: Vec<u64>,
    libraries: Vec<u64>,
    overflow: Vec<i32>,
    arguments: [RunArguments; 1],
}

impl Memory {
    fn new(program: &Program, layout: &Layout) -> Self {
        let poison = |bytes: usize| vec![u64::MAX; bytes.div_ceil(8)];
        Self {
            parameters: poison(layout.parameter_bytes),
            gradients: vec![f32::NAN; layout.elements],
            states: vec![0; layout.state_bytes.div_ceil(8)],
            step: poison(layout.step_bytes),
            input: poison(program.input_bytes),
            activations: poison(program.activation_bytes),
            // No library runs here.
            libraries: Vec::new(),
            overflow: vec![0],
            arguments: [RunArguments::default()],
        }
    }

    /// Parameters and gradients by unit.
    fn units(&mut self, layout: &Layout) -> (Vec<DeviceSlice>, Vec<DeviceSlice>) {
        let parameters = DeviceSlice::from_host(&mut self.parameters);
        let gradients = DeviceSlice::from_host(&mut self.gradients);
        (layout.parameters_by_unit(parameters), layout.gradients_by_unit(gradients))
    }

    fn bindings<'a>(
        &mut self,
        parameters: &'a [DeviceSlice],
        gradients: &'a [DeviceSlice],
    ) -> Bindings<'a> {
        Bindings {
            parameters,
            gradients,
            states: DeviceSlice::from_host(&mut self.states),
            step: DeviceSlice::from_host(&mut self.step),
            input: DeviceSlice::from_host(&mut self.input),
            activations: DeviceSlice::from_host(&mut self.activations),
            libraries: DeviceSlice::from_host(&mut self.libraries),
            overflow: DeviceSlice::from_host(&mut self.overflow),
            arguments: DeviceSlice::from_host(&mut self.arguments),
        }
    }

    fn fill_field(&mut self, program: &Program, name: &str, array: &Array) {
        let offset = program.field(name).expect("declared above").offset;
        store(&mut self.input, offset, array);
    }
}

fn store(region: &mut [u64], byte: usize, array: &Array) {
    write(&mut bytemuck::cast_slice_mut(region)[byte..], array);
}

/// The gradient of `Σ seed · f(x)` with respect to input `which`, by central differences in f64.
pub fn numeric_gradient(
    inputs: &[Vec<f64>],
    which: usize,
    seed: &[f64],
    f: &dyn Fn(&[Vec<f64>]) -> Vec<f64>,
) -> Vec<f64> {
    let mut inputs = inputs.to_vec();
    let value =
        |inputs: &[Vec<f64>]| -> f64 { f(inputs).iter().zip(seed).map(|(y, s)| y * s).sum() };
    (0..inputs[which].len())
        .map(|i| {
            let x = inputs[which][i];
            let h = 1e-5 * x.abs().max(1.0);
            inputs[which][i] = x + h;
            let up = value(&inputs);
            inputs[which][i] = x - h;
            let down = value(&inputs);
            inputs[which][i] = x;
            (up - down) / (2.0 * h)
        })
        .collect()
}

/// Asserts that every element is within `absolute + relative · |expected|`.
pub fn assert_close(got: &[f32], expected: &[f64], absolute: f64, relative: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
        let same = f64::from(g) == e || (g.is_nan() && e.is_nan());
        let error = (f64::from(g) - e).abs();
        assert!(same || error <= absolute + relative * e.abs(), "{what}[{i}]: {g}, expected {e}");
    }
}

/// Widens to f64.
pub fn wide(data: &[f32]) -> Vec<f64> {
    data.iter().map(|&x| f64::from(x)).collect()
}
