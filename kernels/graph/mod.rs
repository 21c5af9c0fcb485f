//! The graph: a model traced forward once, with every shape checked while it is being built.
//!
//! Legend: `tensor` handles are positions in [`Graph::tensors`], nodes run in the order in which
//! they were added. The graph holds no data and knows no device; [`Program`] is what becomes of it.

use std::sync::Arc;

use crate::dtype::{DType, Precision};
use crate::error::{Error, Result};
use crate::ops::{Io, Op};
use crate::random::Site;
use crate::shape::Spec;

mod access;
pub mod cost;
mod fuse;
mod gradient;
pub mod layout;
mod ownership;
pub mod plan;
pub mod program;
pub mod recompute;
pub mod target;
#[cfg(test)]
mod tests;
pub mod variables;

pub use access::Access;
pub use cost::{Cost, Peaks};
pub use gradient::Backward;
pub use layout::{Granularity, Layout};
pub use ownership::Ownership;
pub use program::{ARGUMENT_BYTES, Bindings, Goal, Policy, Program, RunContext, Shared};
pub use recompute::{Mix, Recompute, Region};
pub use target::Target;
pub use variables::{
    Init, Parameter, ParameterId, State, StateId, StateUse, StepBuffer, StepBufferId, Variables,
};

/// A symbolic tensor of one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tensor(pub(crate) usize);

/// Which part of a step buffer a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The slice of the micro-batch that is running.
    Slice,
    /// All slices, in micro-batch order.
    Whole,
}

/// What a tensor is, which decides where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A weight.
    Parameter(ParameterId),
    /// The fp32 gradient of a weight, in the lane's gradient buffer.
    Gradient(ParameterId),
    /// A persistent tensor.
    State(StateId),
    /// Rows shared between the programs of a step.
    Step(StepBufferId, Part),
    /// Filled from the batch slot before the program runs; the position among the program's inputs.
    Input(usize),
    /// Made and used inside the program.
    Intermediate,
    /// The same memory as another tensor under another shape.
    Alias(Tensor),
}

/// One tensor of a graph.
#[derive(Debug, Clone)]
pub(crate) struct TensorInfo {
    pub(crate) spec: Spec,
    pub(crate) kind: Kind,
    pub(crate) producer: Option<usize>,
    /// Whether a gradient with respect to it can be asked for.
    pub(crate) differentiable: bool,
}

/// How a node writes an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// The old content is dead.
    Overwrite,
    /// Added to what is there.
    Accumulate,
    /// Overwrites in the first run of a lane that touches this gradient, accumulates in later ones.
    FirstInLane,
}

/// One op with its operands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) op: Arc<dyn Op>,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) outputs: Vec<(Tensor, Write)>,
    pub(crate) path: String,
    pub(crate) regions: Regions,
    /// To what the operands of its products are rounded; what the policy says if not given.
    pub(crate) matmul: Option<Precision>,
    /// Names the node's random draws. Clones and gradients share that of the node they come from.
    pub(crate) site: Site,
}

/// The recompute regions that a node was traced in, by instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Regions {
    pub(crate) block: Option<usize>,
    pub(crate) feed_forward: Option<usize>,
}

/// A named result that the host can fetch after a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Name, unique in the program.
    pub name: String,
    /// What is read.
    pub tensor: Tensor,
}

/// The builder that models and objectives are written against.
#[derive(Debug)]
pub struct Graph<'v> {
    pub(crate) variables: &'v Variables,
    pub(crate) tensors: Vec<TensorInfo>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) inputs: Vec<(String, Tensor)>,
    pub(crate) fetches: Vec<Fetch>,
    pub(crate) sinks: Vec<(Tensor, Tensor)>,
    bound: Vec<(Kind, Tensor)>,
    spot: Spot,
    region_count: usize,
}

/// Where later nodes are put.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spot {
    path: Vec<String>,
    regions: Regions,
    matmul: Option<Precision>,
    site: Option<Site>,
}

impl<'v> Graph<'v> {
    /// An empty graph over these variables.
    pub fn new(variables: &'v Variables) -> Self {
        Self {
            variables,
            tensors: Vec::new(),
            nodes: Vec::new(),
            inputs: Vec::new(),
            fetches: Vec::new(),
            sinks: Vec::new(),
            bound: Vec::new(),
            spot: Spot::default(),
            region_count: 0,
        }
    }

    /// A weight as a tensor.
    pub fn parameter(&mut self, id: ParameterId) -> Tensor {
        let p = &self.variables.parameters()[id.0];
        self.bind(Kind::Parameter(id), Spec::new(&p.shape, p.dtype), p.trainable)
    }

    /// A state as a tensor.
    pub fn state(&mut self, id: StateId) -> Tensor {
        let s = &self.variables.states()[id.0];
        self.bind(Kind::State(id), Spec::new(&s.shape, s.dtype), false)
    }

    /// The running micro-batch's slice of a step buffer.
    pub fn step_slice(&mut self, id: StepBufferId) -> Tensor {
        let b = &self.variables.step_buffers()[id.0];
        self.bind(Kind::Step(id, Part::Slice), Spec::new(&b.slice, b.dtype), false)
    }

    /// All slices of a step buffer: `[micro_batches × slice[0], …]`. Differentiable, so that a
    /// program can send the gradient back through another step buffer.
    pub fn step_whole(&mut self, id: StepBufferId) -> Tensor {
        let b = &self.variables.step_buffers()[id.0];
        let mut shape = b.slice.clone();
        shape[0] *= b.micro_batches;
        self.bind(Kind::Step(id, Part::Whole), Spec::new(&shape, b.dtype), b.dtype.is_float())
    }

    /// An input of the batch slot. The name is how the loader finds it.
    pub fn input(&mut self, name: &str, shape: &[usize], dtype: DType) -> Tensor {
        assert!(self.inputs.iter().all(|(n, _)| n != name), "two inputs named {name}");
        let kind = Kind::Input(self.inputs.len());
        let tensor = self.add_tensor(Spec::new(shape, dtype), kind, None, false);
        self.inputs.push((name.to_string(), tensor));
        tensor
    }

    /// The same elements under another shape; costs nothing. The leading dimension keeps its live
    /// extent only if its capacity stays.
    ///
    /// # Errors
    /// [`Error::Shape`] when the numbers of elements differ.
    pub fn reshape(&mut self, tensor: Tensor, shape: &[usize]) -> Result<Tensor> {
        let spec = self.spec(tensor).clone();
        let elements: usize = shape.iter().product();
        if elements != spec.elements() {
            return Err(self.refuse("reshape", format!("{spec} into {shape:?}")));
        }
        let keeps = shape.first() == spec.shape.first();
        let live = if keeps { spec.live } else { None };
        if spec.live.is_some() && live.is_none() {
            return Err(self.refuse("reshape", format!("{spec} would lose its live extent")));
        }
        let root = self.root(tensor);
        let differentiable = self.tensors[tensor.0].differentiable;
        let reshaped = Spec { shape: shape.to_vec(), dtype: spec.dtype, live };
        Ok(self.add_tensor(reshaped, Kind::Alias(root), None, differentiable))
    }

    /// Declares that the leading dimension of an input, state or step tensor is live up to `extent`
    /// (a scalar `I32`). The result shares the memory.
    pub fn with_live(&mut self, tensor: Tensor, extent: Tensor) -> Tensor {
        let spec = self.spec(tensor).clone().with_live(Some(extent));
        let differentiable = self.tensors[tensor.0].differentiable;
        let root = self.root(tensor);
        self.add_tensor(spec, Kind::Alias(root), None, differentiable)
    }

    /// The same tensor, but nothing flows back through it.
    pub fn stop_gradient(&mut self, tensor: Tensor) -> Tensor {
        let spec = self.spec(tensor).clone();
        let root = self.root(tensor);
        self.add_tensor(spec, Kind::Alias(root), None, false)
    }

    /// Adds an op and returns its outputs.
    ///
    /// # Errors
    /// [`Error::Shape`] when the op refuses its operands.
    pub fn apply(&mut self, op: impl Op + 'static, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.apply_shared(Arc::new(op), inputs)
    }

    /// Adds an op with one output.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_one(&mut self, op: impl Op + 'static, inputs: &[Tensor]) -> Result<Tensor> {
        let outputs = self.apply(op, inputs)?;
        assert_eq!(outputs.len(), 1, "apply_one on an op with {} outputs", outputs.len());
        Ok(outputs[0])
    }

    pub(crate) fn apply_shared(
        &mut self,
        op: Arc<dyn Op>,
        inputs: &[Tensor],
    ) -> Result<Vec<Tensor>> {
        let specs = self.output_specs(&*op, inputs)?;
        let differentiable =
            op.differentiable() && inputs.iter().any(|t| self.tensors[t.0].differentiable);
        let node = self.nodes.len();
        let outputs: Vec<Tensor> = specs
            .into_iter()
            .map(|spec| {
                let differentiable = differentiable && spec.dtype.is_float();
                self.add_tensor(spec, Kind::Intermediate, Some(node), differentiable)
            })
            .collect();
        let written = outputs.iter().map(|&t| (t, Write::Overwrite)).collect();
        self.push_node(op, inputs.to_vec(), written)?;
        Ok(outputs)
    }

    /// Adds an op with one output whose result goes into an existing tensor: a state, a step
    /// buffer's slice. Later nodes that read `target` see the new content.
    ///
    /// # Errors
    /// [`Error::Shape`] when shapes differ, the op cannot accumulate and is asked to, or `target`
    /// shares memory with an input: an op reads and writes apart.
    pub fn apply_into(
        &mut self,
        op: impl Op + 'static,
        inputs: &[Tensor],
        target: Tensor,
        write: Write,
    ) -> Result<()> {
        self.write_into(Arc::new(op), inputs, target, write)
    }

    pub(crate) fn write_into(
        &mut self,
        op: Arc<dyn Op>,
        inputs: &[Tensor],
        target: Tensor,
        write: Write,
    ) -> Result<()> {
        let specs = self.output_specs(&*op, inputs)?;
        let name = op.name();
        let spec = self.spec(target).clone();
        let (made, stored) = (specs[0].dtype, spec.dtype);
        let same_kind = made == stored || made.widens_to_f32() && stored.widens_to_f32();
        if specs.len() != 1 || specs[0].elements() != spec.elements() || !same_kind {
            return Err(self.refuse(name, format!("cannot write {} into {spec}", specs[0])));
        }
        if write != Write::Overwrite && !op.accumulates() {
            return Err(self.refuse(name, "cannot accumulate".to_string()));
        }
        self.push_node(op, inputs.to_vec(), vec![(target, write)])
    }

    pub(crate) fn output_specs(&self, op: &dyn Op, inputs: &[Tensor]) -> Result<Vec<Spec>> {
        let given: Vec<&Spec> = inputs.iter().map(|&t| self.spec(t)).collect();
        op.outputs(&given).map_err(|what| self.refuse(op.name(), what))
    }

    pub(crate) fn push_node(
        &mut self,
        op: Arc<dyn Op>,
        inputs: Vec<Tensor>,
        outputs: Vec<(Tensor, Write)>,
    ) -> Result<()> {
        self.check_apart(op.name(), &inputs, &outputs)?;
        let Spot { ref path, regions, matmul, site } = self.spot;
        let path = path.join(".");
        let site = site.unwrap_or_else(|| {
            let twins = |n: &&Node| n.path == path && n.op.name() == op.name();
            let twin = self.nodes.iter().rev().filter(twins).count();
            Site::new(&format!("{path}/{}/{twin}", op.name()))
        });
        self.nodes.push(Node { op, inputs, outputs, path, regions, matmul, site });
        Ok(())
    }

    /// Refuses a node that would write what it reads (live extents included), or twice.
    fn check_apart(
        &self,
        op: &'static str,
        inputs: &[Tensor],
        outputs: &[(Tensor, Write)],
    ) -> Result<()> {
        let made = |i: usize| outputs[i].0;
        let operands = inputs.iter().copied().chain((0..outputs.len()).map(made));
        let extents = operands.filter_map(|t| self.spec(t).live);
        let read: Vec<Tensor> = inputs.iter().copied().chain(extents).collect();
        for i in 0..outputs.len() {
            let earlier = (0..i).map(made);
            if read.iter().copied().chain(earlier).any(|t| self.share_memory(t, made(i))) {
                let spec = self.spec(made(i));
                return Err(
                    self.refuse(op, format!("writes {spec}, which it also reads or writes"))
                );
            }
        }
        Ok(())
    }

    /// Whether two tensors have bytes in common.
    fn share_memory(&self, a: Tensor, b: Tensor) -> bool {
        let (a, b) = (self.root(a), self.root(b));
        match (self.tensors[a.0].kind, self.tensors[b.0].kind) {
            (Kind::Step(a, _), Kind::Step(b, _)) => a == b,
            _ => a == b,
        }
    }

    /// Asks that the host can fetch `tensor` by name after a run.
    pub fn fetch(&mut self, name: &str, tensor: Tensor) {
        assert!(self.fetches.iter().all(|f| f.name != name), "two fetches named {name}");
        self.fetches.push(Fetch { name: name.to_string(), tensor });
    }

    /// Asks that backward writes the gradient with respect to `tensor` into `target`.
    pub fn send_gradient(&mut self, tensor: Tensor, target: Tensor) {
        self.sinks.push((tensor, target));
    }

    /// Traces under a path component: names of random sites, of nodes in profiles and errors.
    pub fn scoped<R>(&mut self, name: &str, trace: impl FnOnce(&mut Self) -> R) -> R {
        self.spot.path.push(name.to_string());
        let result = trace(self);
        self.spot.path.pop();
        result
    }

    /// Traces ops whose products round their operands to `precision`, backward too, whatever the
    /// policy says: a head or a router that stays in `F32`.
    pub fn with_precision<R>(
        &mut self,
        precision: Precision,
        trace: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let outer = self.spot.matmul.replace(precision);
        let result = trace(self);
        self.spot.matmul = outer;
        result
    }

    /// Traces a region that a recompute policy may drop and rebuild.
    pub fn region<R>(&mut self, region: Region, trace: impl FnOnce(&mut Self) -> R) -> R {
        let outer = self.spot.regions;
        let instance = Some(self.region_count);
        self.region_count += 1;
        match region {
            Region::Block => self.spot.regions.block = instance,
            Region::FeedForward => self.spot.regions.feed_forward = instance,
        }
        let result = trace(self);
        self.spot.regions = outer;
        result
    }

    /// The instances of block regions, in the order of the model.
    pub(crate) fn blocks(&self) -> Vec<usize> {
        let mut blocks: Vec<usize> = self.nodes.iter().filter_map(|n| n.regions.block).collect();
        blocks.dedup();
        blocks
    }

    /// Shape and dtype of a tensor.
    pub fn spec(&self, tensor: Tensor) -> &Spec {
        &self.tensors[tensor.0].spec
    }

    /// Everything known about an op's operands, for its cost.
    pub(crate) fn io(&self, node: &Node) -> Io {
        Io {
            inputs: node.inputs.iter().map(|&t| self.spec(t).clone()).collect(),
            outputs: node.outputs.iter().map(|&(t, _)| self.spec(t).clone()).collect(),
        }
    }

    /// The tensor whose memory this one is.
    pub(crate) fn root(&self, tensor: Tensor) -> Tensor {
        match self.tensors[tensor.0].kind {
            Kind::Alias(root) => root,
            _ => tensor,
        }
    }

    /// A typed refusal at the current path.
    pub fn refuse(&self, op: &'static str, what: String) -> Error {
        Error::Shape { op, path: self.spot.path.join("."), what }
    }

    /// Where later nodes are put now, to come back to.
    pub(crate) fn spot(&self) -> Spot {
        self.spot.clone()
    }

    pub(crate) fn go_back(&mut self, spot: Spot) {
        self.spot = spot;
    }

    /// Later nodes belong to `node`: its gradient, or its second run.
    pub(crate) fn go_to(&mut self, node: &Node) {
        let Node { ref path, regions, matmul, site, .. } = *node;
        self.spot = Spot { path: vec![path.clone()], regions, matmul, site: Some(site) };
    }

    pub(crate) fn add_tensor(
        &mut self,
        spec: Spec,
        kind: Kind,
        producer: Option<usize>,
        differentiable: bool,
    ) -> Tensor {
        self.tensors.push(TensorInfo { spec, kind, producer, differentiable });
        Tensor(self.tensors.len() - 1)
    }

    fn bind(&mut self, kind: Kind, spec: Spec, differentiable: bool) -> Tensor {
        if let Some(&(_, tensor)) = self.bound.iter().find(|(k, _)| *k == kind) {
            return tensor;
        }
        let tensor = self.add_tensor(spec, kind, None, differentiable);
        self.bound.push((kind, tensor));
        tensor
    }

    pub(crate) fn gradient_of(&mut self, id: ParameterId) -> Tensor {
        let shape = self.variables.parameters()[id.0].shape.clone();
        self.bind(Kind::Gradient(id), Spec::new(&shape, DType::F32), false)
    }
}
