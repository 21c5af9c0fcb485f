//! A compiled graph: static order, static addresses, nothing left to decide at run time.
//!
//! Owns no memory. A run is given the regions of the rank's arena and executes a range of nodes, so
//! that the step plan can put collectives between them.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use crate::collectives::Communicator;
use crate::device::RunArguments;
use crate::dtype::{DType, Precision};
use crate::error::{Error, Result};
use crate::graph::access::{Access, accesses};
use crate::graph::cost::Cost;
use crate::graph::fuse::fuse;
use crate::graph::gradient::differentiate;
use crate::graph::layout::{Layout, Placement};
use crate::graph::plan::{Lifetime, lifetimes, pack, until};
use crate::graph::recompute::Mix;
use crate::graph::target::Target;
use crate::graph::variables::{ParameterId, StateId, StepBufferId};
use crate::graph::{Graph, Kind, Part, Tensor, Write};
use crate::launch::Launches;
use crate::memory::{DeviceSlice, REGION_ALIGNMENT};
use crate::operands::Place;
use crate::ops::{Io, Op, Stream};
use crate::random::Site;
use crate::shape::Spec;

/// What a program is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// Backward from an `F32` scalar into the gradients of the trainable parameters.
    Train {
        /// The scalar.
        loss: Tensor,
    },
    /// Forward only; results are fetched, or written into states and step buffers.
    Forward,
    /// Backward from given gradients: pairs of an output and the tensor that holds its gradient.
    Vjp {
        /// Output, gradient.
        outputs: Vec<(Tensor, Tensor)>,
    },
}

/// How a graph is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Policy {
    /// What backward computes again instead of keeping.
    pub recompute: Mix,
    /// What it will run on; decides scratch.
    pub target: Target,
    /// One node for every op, though the target could run some in one pass: what tests compare.
    pub unfused: bool,
    /// To what the operands of linear layers' products are rounded, where the graph does not say
    /// otherwise ([`Graph::with_precision`]).
    pub matmul: Precision,
}

#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) spec: Spec,
    place: Place,
}

/// A node whose operands have addresses.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) op: Arc<dyn Op>,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) outputs: Vec<(Tensor, Write)>,
    /// The parameter whose gradient an output is.
    pub(crate) owners: Vec<Option<ParameterId>>,
    pub(crate) path: String,
    pub(crate) site: Site,
    /// To what the operands of its products are rounded.
    pub(crate) matmul: Precision,
    /// Offset and bytes of the op's scratch among the activations.
    pub(crate) workspace: (usize, usize),
    /// What offsets of scratch count from, if not from the activations.
    pub(crate) elsewhere: Option<DeviceSlice>,
    /// Scratch offsets where narrow operands stand widened to `F32`: inputs, then outputs.
    pub(crate) widened: Vec<Option<usize>>,
    /// What it asks of a GPU; `None` on a CPU, and for an op that has no launches yet.
    pub(crate) launches: Option<Launches>,
    cost: Cost,
}

/// An input of a program's batch record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Name given by the objective.
    pub name: String,
    /// Shape and dtype.
    pub spec: Spec,
    /// Byte offset in the record.
    pub offset: usize,
}

/// A node for tables: where the time and the memory traffic go.
#[derive(Debug, Clone)]
pub struct NodeCost {
    /// The op's name.
    pub op: &'static str,
    /// Where in the model it stands.
    pub path: String,
    /// FLOPs and bytes.
    pub cost: Cost,
}

/// The regions of a rank's arena that a run uses.
#[derive(Debug, Clone, Copy)]
pub struct Bindings<'a> {
    /// By unit: its parameters.
    pub parameters: &'a [DeviceSlice],
    /// By unit: its `F32` gradients, in the buffer of the lane that runs.
    pub gradients: &'a [DeviceSlice],
    /// All states, [`Layout::state_bytes`].
    pub states: DeviceSlice,
    /// All step buffers, [`Layout::step_bytes`].
    pub step: DeviceSlice,
    /// The record of the micro-batch, [`Program::input_bytes`].
    pub input: DeviceSlice,
    /// Intermediates and scratch, [`Program::activation_bytes`].
    pub activations: DeviceSlice,
    /// The workspaces of libraries, [`Target::library_bytes`].
    pub libraries: DeviceSlice,
    /// One `I32`, set to 1 by an op whose live extent would exceed its capacity.
    pub overflow: DeviceSlice,
    /// [`RunArguments`].
    pub arguments: DeviceSlice,
}

/// Bytes of the region of run arguments.
pub const ARGUMENT_BYTES: usize = size_of::<RunArguments>();

/// What a run must know besides its memory. It decides which captured work runs; what changes from
/// run to run without changing the work stands in [`Bindings::arguments`].
#[derive(Clone, Copy)]
pub struct RunContext<'a> {
    /// Of all random draws of the run.
    pub seed: u64,
    /// Position of this micro-batch in its group: which slice of the step buffers it is.
    pub slice: usize,
    /// By parameter: whether this run is the first of its lane to write that gradient.
    pub first_in_lane: &'a [bool],
    /// For ops that meet other devices.
    pub communicator: Option<&'a RefCell<Box<dyn Communicator>>>,
}

/// What of the run's variables a program touches beyond reading them: who plans steps must know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shared {
    /// States that it writes.
    pub states: Vec<StateId>,
    /// Parameters that it writes.
    pub parameters: Vec<ParameterId>,
    /// Step buffers of which it reads or writes the running micro-batch's slice.
    pub slices: Vec<StepBufferId>,
}

/// A compiled graph.
#[derive(Debug)]
pub struct Program {
    /// For tables and errors.
    pub name: String,
    nodes: Vec<Planned>,
    tensors: Vec<Placed>,
    fields: Vec<Field>,
    fetches: Vec<(String, Tensor)>,
    gradient_writes: Vec<(ParameterId, usize)>,
    accesses: Vec<Access>,
    meetings: Vec<usize>,
    shared: Shared,
    /// Bytes of one micro-batch's record.
    pub input_bytes: usize,
    /// Bytes of intermediates and scratch.
    pub activation_bytes: usize,
    /// What it was compiled for.
    pub target: Target,
    /// To what the operands of linear layers' products are rounded.
    pub matmul: Precision,
    /// Block regions of its forward part.
    pub blocks: usize,
}

impl Program {
    /// Differentiates, applies the recompute policy, fuses nodes, and gives every tensor its place.
    ///
    /// # Errors
    /// [`Error::NoGradient`] and [`Error::Plan`] from backward.
    pub fn compile(
        name: &str,
        mut graph: Graph<'_>,
        goal: &Goal,
        policy: Policy,
        layout: &Layout,
    ) -> Result<Self> {
        let Policy { recompute, target, unfused, matmul } = policy;
        let blocks = graph.blocks().len();
        differentiate(&mut graph, goal, recompute)?;
        if !unfused {
            fuse(&mut graph, target);
        }
        let mut lives = lifetimes(&graph);
        let scratch_at = lives.len();
        let ios: Vec<Io> = graph.nodes.iter().map(|n| graph.io(n)).collect();
        let mut scratch = Vec::with_capacity(ios.len());
        for (i, (node, io)) in graph.nodes.iter().zip(&ios).enumerate() {
            let needed = Scratch::of(&*node.op, io, target)?;
            let (bytes, last) = (needed.bytes(), until(&graph, i));
            lives.push((bytes > 0).then_some(Lifetime { first: i, last, bytes }));
            scratch.push(needed);
        }
        let (offsets, activation_bytes) = pack(&lives);
        let (fields, input_bytes) = fields(&graph);
        let tensors = place(&graph, &offsets, &fields, layout);
        let nodes = graph.nodes.iter().zip(&ios).zip(scratch).zip(&offsets[scratch_at..]);
        let nodes = nodes
            .map(|(((node, io), scratch), &at)| {
                let owners = node.outputs.iter().map(|&(t, _)| owner(&graph, t)).collect();
                Planned {
                    op: node.op.clone(),
                    inputs: node.inputs.clone(),
                    outputs: node.outputs.clone(),
                    owners,
                    path: node.path.clone(),
                    site: node.site,
                    matmul: node.matmul.unwrap_or(matmul),
                    workspace: (at, scratch.workspace),
                    elsewhere: None,
                    widened: scratch.widened_from(at),
                    launches: scratch.launches,
                    cost: node.op.cost(io),
                }
            })
            .collect();
        let fetches = graph.fetches.iter().map(|f| (f.name.clone(), f.tensor)).collect();
        let gradient_writes = last_gradient_writes(&graph);
        let accesses = accesses(&graph);
        let meets = |i: &usize| graph.nodes[*i].op.stream() == Stream::Communication;
        let meetings = (0..graph.nodes.len()).filter(meets).collect();
        let shared = shared(&graph);
        let name = name.to_string();
        Ok(Self {
            name,
            nodes,
            tensors,
            fields,
            fetches,
            gradient_writes,
            accesses,
            meetings,
            shared,
            input_bytes,
            activation_bytes,
            target,
            matmul,
            blocks,
        })
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The inputs of a micro-batch's record, in the order in which they were declared.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The named input.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name == name)
    }

    /// Names and specs of what can be fetched after a run, in the order in which it was asked for.
    pub fn fetches(&self) -> impl Iterator<Item = (&str, &Spec)> {
        self.fetches.iter().map(|(name, t)| (name.as_str(), &self.tensors[t.0].spec))
    }

    /// Every parameter whose gradient this program writes, with the last node that does.
    pub fn gradient_writes(&self) -> &[(ParameterId, usize)] {
        &self.gradient_writes
    }

    /// Every use of a parameter or of its gradient, in the order of the nodes.
    pub fn accesses(&self) -> &[Access] {
        &self.accesses
    }

    /// The nodes that meet other devices.
    pub fn meetings(&self) -> &[usize] {
        &self.meetings
    }

    /// What it writes besides gradients, and which step buffers it has a slice of.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Cost of every node, in order.
    pub fn costs(&self) -> impl Iterator<Item = NodeCost> {
        self.nodes.iter().map(|n| NodeCost { op: n.op.name(), path: n.path.clone(), cost: n.cost })
    }

    /// Cost of one run.
    pub fn cost(&self) -> Cost {
        self.nodes.iter().map(|n| n.cost).sum()
    }

    /// The nodes of a range, for the device that runs them.
    pub(crate) fn planned(&self, nodes: Range<usize>) -> &[Planned] {
        &self.nodes[nodes]
    }

    /// A node as a CPU runs it, whatever device the program was planned for, and the bytes of
    /// scratch that it needs [`Planned::elsewhere`].
    pub(crate) fn on_a_cpu(&self, node: usize) -> Result<(Planned, usize)> {
        let planned = &self.nodes[node];
        let io = Io {
            inputs: planned.inputs.iter().map(|&input| self.spec(input).clone()).collect(),
            outputs: planned.outputs.iter().map(|&(output, _)| self.spec(output).clone()).collect(),
        };
        let scratch = Scratch::of(&*planned.op, &io, Target::Cpu)?;
        let bytes = scratch.bytes();
        let (workspace, widened) = ((0, scratch.workspace), scratch.widened_from(0));
        Ok((Planned { workspace, widened, launches: None, ..planned.clone() }, bytes))
    }

    /// Where a fetched tensor lies in this run's memory.
    ///
    /// # Errors
    /// [`Error::Plan`] when nothing of that name is fetched.
    pub fn fetched(
        &self,
        name: &str,
        bindings: &Bindings<'_>,
        slice: usize,
    ) -> Result<DeviceSlice> {
        let found = self.fetches.iter().find(|(n, _)| n == name);
        let (_, tensor) =
            found.ok_or_else(|| Error::Plan(format!("program {} fetches no {name}", self.name)))?;
        Ok(self.resolve(*tensor, bindings, slice))
    }

    pub(crate) fn spec(&self, tensor: Tensor) -> &Spec {
        &self.tensors[tensor.0].spec
    }

    pub(crate) fn place(&self, tensor: Tensor) -> Place {
        self.tensors[tensor.0].place
    }

    pub(crate) fn resolve(&self, tensor: Tensor, b: &Bindings<'_>, slice: usize) -> DeviceSlice {
        let Placed { spec, place } = &self.tensors[tensor.0];
        place.slice(b, slice, spec.bytes())
    }
}

fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(REGION_ALIGNMENT)
}

/// What a node takes while it runs, besides its operands.
struct Scratch {
    /// What it asks of a GPU, checked; `None` on a CPU and from an op that does not say.
    launches: Option<Launches>,
    /// Bytes of the op's own.
    workspace: usize,
    /// By operand: bytes where it stands widened on a CPU; 0 if it does not.
    widened: Vec<usize>,
}

impl Scratch {
    fn of(op: &dyn Op, io: &Io, target: Target) -> Result<Self> {
        let launches = match target {
            Target::Cpu => None,
            Target::Gpu(gpu) => op.cuda(io, gpu),
        };
        if let (Some(launches), Target::Gpu(gpu)) = (&launches, target) {
            launches.check(op.name(), io, gpu)?;
        }
        // Where nothing says what a GPU needs, what the CPU needs is assumed.
        let assumed = || op.workspace(io);
        let workspace = launches.as_ref().map_or_else(assumed, |l| l.workspace_bytes);
        let bytes = |(i, spec): (usize, &Spec)| {
            let stored = spec.dtype == DType::Bf16 && i < io.inputs.len() && op.reads_stored(i);
            match spec.dtype.is_narrow() && target.widens() && !stored {
                true => aligned(spec.elements() * size_of::<f32>()),
                false => 0,
            }
        };
        let widened = io.inputs.iter().chain(&io.outputs).enumerate().map(bytes).collect();
        Ok(Self { launches, workspace, widened })
    }

    fn bytes(&self) -> usize {
        aligned(self.workspace) + self.widened.iter().sum::<usize>()
    }

    /// Where operands stand widened in scratch that begins at `at`.
    fn widened_from(&self, at: usize) -> Vec<Option<usize>> {
        let mut next = at + aligned(self.workspace);
        let offset = |&bytes: &usize| {
            let at = next;
            next += bytes;
            (bytes > 0).then_some(at)
        };
        self.widened.iter().map(offset).collect()
    }
}

fn fields(graph: &Graph<'_>) -> (Vec<Field>, usize) {
    let mut end = 0;
    let mut fields = Vec::with_capacity(graph.inputs.len());
    for (name, tensor) in &graph.inputs {
        let spec = graph.spec(*tensor).clone();
        let offset = end;
        end += aligned(spec.bytes());
        fields.push(Field { name: name.clone(), spec, offset });
    }
    (fields, end)
}

fn place(graph: &Graph<'_>, offsets: &[usize], fields: &[Field], layout: &Layout) -> Vec<Placed> {
    let of = |tensor: usize| match graph.tensors[tensor].kind {
        Kind::Parameter(id) => {
            let Placement { unit, byte, .. } = layout.placements[id.0];
            Place::Parameter { unit, offset: byte - layout.units[unit].bytes.start }
        }
        Kind::Gradient(id) => {
            let Placement { unit, start, .. } = layout.placements[id.0];
            Place::Gradient { unit, offset: (start - layout.units[unit].elements.start) * 4 }
        }
        Kind::State(id) => Place::State(layout.states[id.0]),
        Kind::Step(id, part) => {
            let slice_bytes = graph.variables.step_buffers()[id.0].slice_bytes();
            Place::Step { offset: layout.step_buffers[id.0], slice_bytes, part }
        }
        Kind::Input(field) => Place::Input(fields[field].offset),
        Kind::Intermediate => Place::Activation(offsets[tensor]),
        Kind::Alias(_) => unreachable!("roots are not aliases"),
    };
    (0..graph.tensors.len())
        .map(|i| Placed { spec: graph.tensors[i].spec.clone(), place: of(graph.root(Tensor(i)).0) })
        .collect()
}

fn owner(graph: &Graph<'_>, tensor: Tensor) -> Option<ParameterId> {
    match graph.tensors[tensor.0].kind {
        Kind::Gradient(id) => Some(id),
        _ => None,
    }
}

fn shared(graph: &Graph<'_>) -> Shared {
    let mut shared = Shared::default();
    let kind = |t: Tensor| graph.tensors[graph.root(t).0].kind;
    for node in &graph.nodes {
        for &(tensor, _) in &node.outputs {
            match kind(tensor) {
                Kind::State(id) => shared.states.push(id),
                Kind::Parameter(id) => shared.parameters.push(id),
                _ => {}
            }
        }
        for tensor in node.inputs.iter().copied().chain(node.outputs.iter().map(|o| o.0)) {
            if let Kind::Step(id, Part::Slice) = kind(tensor) {
                shared.slices.push(id);
            }
        }
    }
    shared.states.dedup();
    shared.parameters.dedup();
    shared.slices.dedup();
    shared
}

fn last_gradient_writes(graph: &Graph<'_>) -> Vec<(ParameterId, usize)> {
    let mut last = vec![None; graph.variables.parameters().len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        for &(tensor, _) in &node.outputs {
            if let Some(id) = owner(graph, tensor) {
                last[id.0] = Some(i);
            }
        }
    }
    last.into_iter().enumerate().filter_map(|(p, i)| Some((ParameterId(p), i?))).collect()
}
