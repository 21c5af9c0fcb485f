//! What outlives a program: parameters, states and step buffers, shared by all programs of a run.
//!
//! Owns their descriptions only; the bytes lie in the rank's arena.

use crate::dtype::DType;
use crate::random::{RandomStream, Site};

/// A parameter, by its position in [`Variables::parameters`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParameterId(pub usize);

/// A state, by its position in [`Variables::states`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateId(pub usize);

/// A step buffer, by its position in [`Variables::step_buffers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepBufferId(pub usize);

/// How the first value of a variable is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Every element has this value.
    Constant(f32),
    /// Independent normal values of mean 0.
    Normal {
        /// Standard deviation.
        std: f32,
    },
    /// Normal values of mean 0; those farther than three standard deviations are drawn again.
    TruncatedNormal {
        /// Standard deviation before the cut.
        std: f32,
    },
    /// The first value of an earlier parameter of the same shape: a teacher begins as its student.
    SameAs(ParameterId),
}

/// A trained or frozen weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Dotted path, unique in the run: the key in checkpoints.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Storage type. Gradients are `F32` whatever it is.
    pub dtype: DType,
    /// False: no gradient, no bucket, no moments.
    pub trainable: bool,
    /// Whether weight decay applies.
    pub decay: bool,
    /// First value.
    pub init: Init,
}

impl Parameter {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What a state is for, which decides who keeps ranks in agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateUse {
    /// Belongs to one rank and one drive (a KV cache). Never saved.
    Local,
    /// Equal on every rank because only replicated programs write it (a router bias). Saved.
    Replicated,
    /// Integers, zeroed at the step's start, added up by micro-batches and then over ranks, so that
    /// replicated programs see the step's total (load counts). Not saved.
    StepSum,
}

/// A tensor that a program updates and the next program finds.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Dotted path, unique in the run.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Storage type; `I32` for a [`StateUse::StepSum`].
    pub dtype: DType,
    /// Who writes it and whether it is saved.
    pub usage: StateUse,
    /// First value of every element.
    pub init: f32,
}

impl State {
    /// Bytes of the tensor.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bytes()
    }
}

/// Rows that one program of a step leaves for another: one slice per micro-batch, in micro-batch
/// order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepBuffer {
    /// Unique in the run.
    pub name: String,
    /// Dimensions of one micro-batch's slice.
    pub slice: Vec<usize>,
    /// Micro-batches of a group: the whole has `micro_batches × slice[0]` rows.
    pub micro_batches: usize,
    /// Storage type.
    pub dtype: DType,
}

impl StepBuffer {
    /// Bytes of one slice.
    pub fn slice_bytes(&self) -> usize {
        self.slice.iter().product::<usize>() * self.dtype.bytes()
    }

    /// Bytes of the whole.
    pub fn bytes(&self) -> usize {
        self.slice_bytes() * self.micro_batches
    }
}

/// All variables of a run. Models add to it while they are built; graphs refer to it.
#[derive(Debug, Clone, Default)]
pub struct Variables {
    parameters: Vec<Parameter>,
    states: Vec<State>,
    step_buffers: Vec<StepBuffer>,
}

impl Variables {
    /// No variables yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a parameter. Panics on a name that is taken: two tensors must never share a checkpoint
    /// key. Panics if it is to begin as one of another shape.
    pub fn parameter(&mut self, parameter: Parameter) -> ParameterId {
        let name = &parameter.name;
        assert!(self.parameters.iter().all(|p| p.name != *name), "two parameters named {name}");
        if let Init::SameAs(other) = parameter.init {
            let other = &self.parameters[other.0];
            assert_eq!(other.shape, parameter.shape, "{name} begins as {}", other.name);
        }
        self.parameters.push(parameter);
        ParameterId(self.parameters.len() - 1)
    }

    /// Adds a state. Panics on a name that is taken.
    pub fn state(&mut self, state: State) -> StateId {
        let name = &state.name;
        assert!(self.states.iter().all(|s| s.name != *name), "two states named {name}");
        assert!(
            state.usage != StateUse::StepSum || state.dtype == DType::I32,
            "{name}: step sums are exact, so they are i32"
        );
        self.states.push(state);
        StateId(self.states.len() - 1)
    }

    /// Adds a step buffer.
    pub fn step_buffer(&mut self, buffer: StepBuffer) -> StepBufferId {
        self.step_buffers.push(buffer);
        StepBufferId(self.step_buffers.len() - 1)
    }

    /// The first values of a parameter: a pure function of the run's seed, its name and its `init`.
    pub fn first_values(&self, id: ParameterId, seed: u64) -> Vec<f32> {
        let parameter = &self.parameters[id.0];
        let mut values = vec![0.0; parameter.elements()];
        match parameter.init {
            Init::Constant(value) => values.fill(value),
            Init::Normal { std } => {
                let stream = RandomStream { seed, site: Site::new(&parameter.name) };
                stream.fill_normal(0, &mut values, f64::from(std));
            }
            Init::TruncatedNormal { std } => {
                fill_truncated(seed, &parameter.name, &mut values, f64::from(std));
            }
            Init::SameAs(other) => return self.first_values(other, seed),
        }
        values
    }

    /// All parameters, in the order in which they were added.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// In the order in which they were added.
    pub fn states(&self) -> &[State] {
        &self.states
    }

    /// In the order in which they were added.
    pub fn step_buffers(&self) -> &[StepBuffer] {
        &self.step_buffers
    }
}

/// Normal values within three standard deviations. The n-th try of an element is its value in a
/// stream of its own.
fn fill_truncated(seed: u64, name: &str, values: &mut [f32], std: f64) {
    let far = |value: f32| f64::from(value).abs() > 3.0 * std;
    let stream = |site: &str| RandomStream { seed, site: Site::new(site) };
    stream(name).fill_normal(0, values, std);
    for (element, value) in values.iter_mut().enumerate() {
        let mut tries = 0;
        while far(*value) {
            tries += 1;
            let again = stream(&format!("{name}/{tries}"));
            again.fill_normal(element as u64, std::slice::from_mut(value), std);
        }
    }
}
