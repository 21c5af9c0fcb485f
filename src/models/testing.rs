//! What tests of models and objectives share: variables in plain memory, and runs of programs.

use std::collections::HashMap;

use octet_kernels::cpu::CpuDevice;
use octet_kernels::device::{Device, RunArguments};
use octet_kernels::dtype::DType;
use octet_kernels::graph::{
    Bindings, Goal, Granularity, Graph, Layout, ParameterId, Policy, Program, RunContext, Variables,
};
use octet_kernels::memory::DeviceSlice;

/// What a program is given, by name.
pub(crate) enum Field {
    /// `i32`.
    Integers(Vec<i32>),
    /// `f32`.
    Floats(Vec<f32>),
}

/// Initialised variables and memory for one program at a time.
pub(crate) struct Bench {
    pub(crate) variables: Variables,
    pub(crate) layout: Layout,
    device: CpuDevice,
    parameters: Vec<u64>,
    gradients: Vec<f32>,
    states: Vec<u64>,
}

impl Bench {
    pub(crate) fn new(variables: Variables) -> Self {
        let layout = Layout::new(&variables, Granularity { block: 64, bucket: 256 });
        let mut bench = Self {
            device: CpuDevice::new(1),
            parameters: vec![0; layout.parameter_bytes.div_ceil(8)],
            gradients: vec![f32::NAN; layout.elements],
            states: vec![0; layout.state_bytes.div_ceil(8)],
            variables,
            layout,
        };
        for (i, parameter) in bench.variables.parameters().to_vec().iter().enumerate() {
            let values = bench.variables.first_values(ParameterId(i), 1);
            bench.store(&parameter.name, &values);
        }
        bench
    }

    fn index(&self, name: &str) -> usize {
        let found = self.variables.parameters().iter().position(|p| p.name == name);
        found.unwrap_or_else(|| panic!("no parameter {name}"))
    }

    /// Sets a parameter, rounded to its dtype.
    pub(crate) fn store(&mut self, name: &str, values: &[f32]) {
        let index = self.index(name);
        let at = self.layout.placements[index].byte;
        let bytes: Vec<u8> = match self.variables.parameters()[index].dtype {
            DType::F32 => bytemuck::cast_slice(values).to_vec(),
            // Rounded half up: near enough for a first value.
            DType::Bf16 => values
                .iter()
                .flat_map(|x| ((x.to_bits().wrapping_add(0x8000) >> 16) as u16).to_le_bytes())
                .collect(),
            other => panic!("{name} is {other}"),
        };
        let memory: &mut [u8] = bytemuck::cast_slice_mut(&mut self.parameters);
        memory[at..at + bytes.len()].copy_from_slice(&bytes);
    }

    /// An `f32` parameter.
    pub(crate) fn load(&self, name: &str) -> Vec<f32> {
        let index = self.index(name);
        let (at, elements) =
            (self.layout.placements[index].byte, self.layout.placements[index].elements);
        let memory: &[u8] = bytemuck::cast_slice(&self.parameters);
        bytemuck::cast_slice(&memory[at..at + 4 * elements]).to_vec()
    }

    /// The gradient that the last training program left.
    pub(crate) fn gradient(&self, name: &str) -> Vec<f32> {
        let placement = self.layout.placements[self.index(name)];
        self.gradients[placement.start..placement.start + placement.elements].to_vec()
    }

    pub(crate) fn compile(
        &self,
        policy: Policy,
        trace: impl FnOnce(&mut Graph<'_>) -> Goal,
    ) -> Program {
        let mut g = Graph::new(&self.variables);
        let goal = trace(&mut g);
        Program::compile("bench", g, &goal, policy, &self.layout).unwrap()
    }

    /// Runs a program on memory full of NaN; gives its results by name, integers as floats.
    pub(crate) fn run(
        &mut self,
        program: &Program,
        fields: &[(&str, Field)],
    ) -> HashMap<String, Vec<f32>> {
        let mut input = vec![u64::MAX; program.input_bytes.div_ceil(8)];
        let mut activations = vec![u64::MAX; program.activation_bytes.div_ceil(8)];
        let (mut step, mut overflow) = (vec![0u64], vec![0i32]);
        let mut arguments = [RunArguments::default()];
        assert_eq!(fields.len(), program.fields().len(), "every input is given");
        for (name, field) in fields {
            let at = program.field(name).unwrap_or_else(|| panic!("no input {name}")).offset;
            let bytes: &[u8] = match field {
                Field::Integers(values) => bytemuck::cast_slice(values),
                Field::Floats(values) => bytemuck::cast_slice(values),
            };
            let memory: &mut [u8] = bytemuck::cast_slice_mut(&mut input);
            memory[at..at + bytes.len()].copy_from_slice(bytes);
        }
        let parameters = DeviceSlice::from_host(&mut self.parameters);
        let gradients = DeviceSlice::from_host(&mut self.gradients);
        let bindings = Bindings {
            parameters: &self.layout.parameters_by_unit(parameters),
            gradients: &self.layout.gradients_by_unit(gradients),
            states: DeviceSlice::from_host(&mut self.states),
            step: DeviceSlice::from_host(&mut step),
            input: DeviceSlice::from_host(&mut input),
            activations: DeviceSlice::from_host(&mut activations),
            // A CPU has no libraries.
            libraries: DeviceSlice::from_host::<u8>(&mut []),
            overflow: DeviceSlice::from_host(&mut overflow),
            arguments: DeviceSlice::from_host(&mut arguments),
        };
        let context = RunContext {
            seed: 7,
            slice: 0,
            first_in_lane: &vec![true; self.variables.parameters().len()],
            communicator: None,
        };
        // SAFETY: the regions are alive, and nobody else uses them.
        unsafe { self.device.run(program, &bindings, &context, 0..program.nodes()) }.unwrap();
        let mut results = HashMap::new();
        for (name, spec) in program.fetches() {
            let slice = program.fetched(name, &bindings, 0).unwrap();
            // SAFETY: the run is over and its memory is still alive.
            let bytes: &[u8] = unsafe { slice.as_slice() };
            let words = bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
            let values = match spec.dtype {
                DType::F32 => words.map(f32::from_le_bytes).collect(),
                DType::I32 => words.map(|b| i32::from_le_bytes(b) as f32).collect(),
                other => panic!("{name} is {other}"),
            };
            results.insert(name.to_owned(), values);
        }
        results
    }
}
