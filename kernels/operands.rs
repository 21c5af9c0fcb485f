//! The operands of one node in one run: which tensor, where it lies, how far it is live and how it
//! is written. Every backend starts from here; addresses are made, no memory is touched.

use crate::graph::program::Planned;
use crate::graph::{Bindings, Part, Program, RunContext, Tensor, Write};
use crate::launch::{Argument, Memory, Operand, TensorMap, row_bytes};
use crate::memory::DeviceSlice;
use crate::random::RandomStream;
use crate::shape::Spec;

#[cfg(test)]
mod tests;

/// Where a tensor lies, as an offset into one of the run's regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Activation(usize),
    Parameter { unit: usize, offset: usize },
    Gradient { unit: usize, offset: usize },
    State(usize),
    Step { offset: usize, slice_bytes: usize, part: Part },
    Input(usize),
}

impl Place {
    /// Its first `bytes` bytes in a run over `b` of slice number `slice`.
    pub(crate) fn slice(self, b: &Bindings<'_>, slice: usize, bytes: usize) -> DeviceSlice {
        let (region, offset) = match self {
            Self::Activation(offset) => (b.activations, offset),
            Self::Parameter { unit, offset } => (b.parameters[unit], offset),
            Self::Gradient { unit, offset } => (b.gradients[unit], offset),
            Self::State(offset) => (b.states, offset),
            Self::Input(offset) => (b.input, offset),
            Self::Step { offset, part: Part::Whole, .. } => (b.step, offset),
            Self::Step { offset, slice_bytes, part: Part::Slice } => {
                (b.step, offset + slice * slice_bytes)
            }
        };
        region.part(offset, bytes)
    }
}

/// One node in one run.
#[derive(Clone, Copy)]
pub struct Operands<'a> {
    pub(crate) program: &'a Program,
    pub(crate) node: &'a Planned,
    pub(crate) bindings: &'a Bindings<'a>,
    pub(crate) context: &'a RunContext<'a>,
}

/// What a parameter of a GPU's function is given in this run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// Device memory; `None`: a null address.
    Address(Option<DeviceSlice>),
    /// Four bytes.
    Word(u32),
    /// Eight bytes.
    Long(u64),
    /// The descriptor of a matrix in this memory.
    TensorMap(TensorMap, DeviceSlice),
}

impl<'a> Operands<'a> {
    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.node.inputs.len()
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.node.outputs.len()
    }

    /// Shape and dtype of input `i`.
    pub fn input_spec(&self, i: usize) -> &'a Spec {
        self.program.spec(self.node.inputs[i])
    }

    /// Shape and dtype of output `i`.
    pub fn output_spec(&self, i: usize) -> &'a Spec {
        self.program.spec(self.node.outputs[i].0)
    }

    /// Input `i` as it is stored, its whole capacity.
    pub fn stored_input(&self, i: usize) -> DeviceSlice {
        self.resolve(self.node.inputs[i])
    }

    /// Output `i` as it is stored, its whole capacity.
    pub fn stored_output(&self, i: usize) -> DeviceSlice {
        self.resolve(self.node.outputs[i].0)
    }

    /// The `i32` that says how many rows of a tensor of this spec are live; `None`: all.
    pub fn extent(&self, spec: &Spec) -> Option<DeviceSlice> {
        spec.live.map(|extent| self.resolve(extent))
    }

    /// Whether output `i` is to be added to.
    pub fn accumulate(&self, i: usize) -> bool {
        match self.node.outputs[i].1 {
            Write::Overwrite => false,
            Write::Accumulate => true,
            Write::FirstInLane => {
                let owner =
                    self.node.owners[i].expect("only gradients are written first in a lane");
                !self.context.first_in_lane[owner.0]
            }
        }
    }

    /// Whether the old content of output `i` is part of the result: it is added to, it has rows
    /// that stay as they are, or the op may leave out others of a tensor that outlives the run.
    pub fn reads_output(&self, i: usize) -> bool {
        let (tensor, write) = self.node.outputs[i];
        let kept = !matches!(self.program.place(tensor), Place::Activation(_));
        write != Write::Overwrite || kept || self.output_spec(i).live.is_some()
    }

    /// The op's scratch.
    pub fn scratch(&self) -> DeviceSlice {
        let (offset, bytes) = self.node.workspace;
        self.scratch_part(offset, bytes)
    }

    /// A part of what the node has while it runs, besides its operands.
    pub(crate) fn scratch_part(&self, offset: usize, bytes: usize) -> DeviceSlice {
        self.node.elsewhere.unwrap_or(self.bindings.activations).part(offset, bytes)
    }

    /// The workspaces of libraries, one call at a time on one stream.
    pub fn libraries(&self) -> DeviceSlice {
        self.bindings.libraries
    }

    /// The node's random stream: its numbers are keyed by step, global sample and element.
    pub fn random(&self) -> RandomStream {
        RandomStream { seed: self.context.seed, site: self.node.site }
    }

    /// What a launch names, as it lies in this run.
    pub fn memory(&self, memory: Memory) -> DeviceSlice {
        match memory {
            Memory::Input(i) => self.stored_input(i),
            Memory::Output(i) => self.stored_output(i),
            Memory::Rows { of, first, count } => {
                let (whole, spec) = match of {
                    Operand::Input(i) => (self.stored_input(i), self.input_spec(i)),
                    Operand::Output(i) => (self.stored_output(i), self.output_spec(i)),
                };
                let bytes = |rows: u32| rows as usize * row_bytes(spec);
                whole.part(bytes(first), bytes(count))
            }
            Memory::Workspace { offset, bytes } => self.scratch().part(offset, bytes),
        }
    }

    /// The spec of the operand that a launch names, or rows of it.
    pub fn spec_of(&self, memory: Memory) -> Option<&'a Spec> {
        memory.operand().map(|operand| match operand {
            Operand::Input(i) => self.input_spec(i),
            Operand::Output(i) => self.output_spec(i),
        })
    }

    /// What a parameter of a function is given.
    pub fn value(&self, argument: &Argument) -> Value {
        match *argument {
            Argument::Pointer(memory) => Value::Address(Some(self.memory(memory))),
            Argument::Live(memory) => {
                Value::Address(self.spec_of(memory).and_then(|spec| self.extent(spec)))
            }
            Argument::Null => Value::Address(None),
            Argument::Overflow => Value::Address(Some(self.bindings.overflow)),
            Argument::RunArguments => Value::Address(Some(self.bindings.arguments)),
            Argument::U32(value) => Value::Word(value),
            Argument::U64(value) => Value::Long(value),
            Argument::F32(value) => Value::Word(value.to_bits()),
            Argument::Key => {
                let [low, high] = self.random().key();
                Value::Long(u64::from(high) << 32 | u64::from(low))
            }
            Argument::Accumulate(i) => Value::Word(u32::from(self.accumulate(i))),
            Argument::TensorMap(map) => Value::TensorMap(map, self.memory(map.memory)),
        }
    }

    fn resolve(&self, tensor: Tensor) -> DeviceSlice {
        self.program.resolve(tensor, self.bindings, self.context.slice)
    }
}
