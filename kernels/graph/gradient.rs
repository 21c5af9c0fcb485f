//! Reverse-mode differentiation: the backward nodes are appended to the forward ones.
//!
//! Rules of who writes where. The gradient of a weight goes straight into the lane's fp32 gradient
//! buffer: the first contribution of a lane overwrites, later ones accumulate. The gradient of an
//! intermediate is made by its first contribution; a later one is added in place when the op can
//! and nobody else still reads that memory, else through a temporary.

use std::collections::HashMap;
use std::sync::Arc;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::program::Goal;
use crate::graph::recompute::{Mix, Saved};
use crate::graph::variables::ParameterId;
use crate::graph::{Graph, Kind, Node, Regions, Tensor, Write};
use crate::ops::Op;
use crate::ops::add::add;
use crate::ops::copy::Copy;
use crate::ops::fill::Fill;
use crate::shape::Spec;

/// Appends backward to `graph` for a goal that has one.
pub(crate) fn differentiate(graph: &mut Graph<'_>, goal: &Goal, recompute: Mix) -> Result<()> {
    let seeds = match goal {
        Goal::Forward => return Ok(()),
        Goal::Train { loss } => {
            let spec = graph.spec(*loss).clone();
            if spec.elements() != 1 || spec.dtype != DType::F32 {
                return Err(Error::Plan(format!("a loss is an f32 scalar, not {spec}")));
            }
            let forward_nodes = graph.nodes.len();
            let one = graph.apply_one(Fill { shape: spec.shape, value: 1.0 }, &[])?;
            let mut sweep = Sweep::new(graph, recompute, forward_nodes);
            sweep.one = Some(one);
            return sweep.run(&[(*loss, one)]);
        }
        Goal::Vjp { outputs } => outputs.clone(),
    };
    let forward_nodes = graph.nodes.len();
    Sweep::new(graph, recompute, forward_nodes).run(&seeds)
}

/// The state of one backward pass.
#[derive(Debug)]
struct Sweep<'g, 'v> {
    graph: &'g mut Graph<'v>,
    saved: Saved,
    forward_nodes: usize,
    /// The gradient of a forward tensor's root, with the root's spec.
    gradients: HashMap<Tensor, Tensor>,
    /// By memory (an alias's root): how many forward tensors have it as their gradient and are not
    /// yet consumed by their producer's rule.
    readers: HashMap<Tensor, usize>,
    written: Vec<bool>,
    /// The gradient of the loss that backward starts from.
    one: Option<Tensor>,
}

impl<'g, 'v> Sweep<'g, 'v> {
    fn new(graph: &'g mut Graph<'v>, recompute: Mix, forward_nodes: usize) -> Self {
        let saved = Saved::new(graph, recompute);
        let written = vec![false; graph.variables.parameters().len()];
        let (gradients, readers) = (HashMap::new(), HashMap::new());
        Self { graph, saved, forward_nodes, gradients, readers, written, one: None }
    }

    fn run(mut self, seeds: &[(Tensor, Tensor)]) -> Result<()> {
        for &(output, gradient) in seeds {
            self.share(output, gradient)?;
        }
        for node in (0..self.forward_nodes).rev() {
            self.visit(node)?;
        }
        let leaves: Vec<Tensor> =
            self.graph.sinks.iter().map(|&(t, _)| self.graph.root(t)).collect();
        for leaf in leaves {
            if self.graph.tensors[leaf.0].producer.is_none() {
                self.drain(leaf)?;
            }
        }
        Ok(())
    }

    /// Copies the gradient of `root`, complete by now, to whoever asked that it be sent.
    fn drain(&mut self, root: Tensor) -> Result<()> {
        let asked = |&&(t, _): &&(Tensor, Tensor)| self.graph.root(t) == root;
        let targets: Vec<Tensor> = self.graph.sinks.iter().filter(asked).map(|s| s.1).collect();
        for target in targets {
            let Some(&gradient) = self.gradients.get(&root) else {
                return Err(Error::Plan("nothing flows back to a sent gradient".to_string()));
            };
            self.graph.write_into(Arc::new(Copy), &[gradient], target, Write::Overwrite)?;
        }
        Ok(())
    }

    fn release(&mut self, gradient: Tensor) {
        let memory = self.graph.root(gradient);
        if let Some(readers) = self.readers.get_mut(&memory) {
            *readers -= 1;
        }
    }

    fn visit(&mut self, node: usize) -> Result<()> {
        let outputs: Vec<Tensor> = self.graph.nodes[node].outputs.iter().map(|o| o.0).collect();
        for &output in &outputs {
            self.drain(output)?;
        }
        let reached = outputs.iter().any(|t| self.gradients.contains_key(t));
        let wanted =
            self.graph.nodes[node].inputs.iter().any(|t| self.graph.tensors[t.0].differentiable);
        if reached && wanted {
            let n = self.graph.nodes[node].clone();
            self.graph.go_to(&n);
            let op = n.op.clone();
            op.gradient(&mut Backward { sweep: self, node })?;
        }
        for output in outputs {
            if let Some(&gradient) = self.gradients.get(&output) {
                self.release(gradient);
            }
        }
        Ok(())
    }

    /// The gradient of `tensor` is the existing tensor `gradient`, or has it as one more term.
    fn share(&mut self, tensor: Tensor, gradient: Tensor) -> Result<()> {
        let root = self.graph.root(tensor);
        let whole = self.graph.root(gradient);
        if matches!(self.graph.tensors[root.0].kind, Kind::Parameter(_)) {
            return self.contribute(tensor, Arc::new(Copy), &[gradient]);
        }
        if let Some(&first) = self.gradients.get(&root) {
            if self.may_add_to(first) {
                return self.graph.write_into(
                    Arc::new(Copy),
                    &[gradient],
                    first,
                    Write::Accumulate,
                );
            }
            return self.sum(root, first, gradient);
        }
        let view = self.as_gradient(root, gradient)?;
        self.gradients.insert(root, view);
        *self.readers.entry(whole).or_insert(0) += 1;
        Ok(())
    }

    /// `op(inputs)` is a term of the gradient of `tensor`.
    fn contribute(&mut self, tensor: Tensor, op: Arc<dyn Op>, inputs: &[Tensor]) -> Result<()> {
        let root = self.graph.root(tensor);
        if let Kind::Parameter(id) = self.graph.tensors[root.0].kind {
            if !op.accumulates() {
                let made = self.graph.apply_shared(op, inputs)?[0];
                return self.contribute(tensor, Arc::new(Copy), &[made]);
            }
            let (gradient, write) = self.gradient_buffer(id);
            return self.graph.write_into(op, inputs, gradient, write);
        }
        let Some(&gradient) = self.gradients.get(&root) else {
            let made = self.graph.apply_shared(op, inputs)?[0];
            return self.adopt(root, made);
        };
        if op.accumulates() && self.may_add_to(gradient) {
            return self.graph.write_into(op, inputs, gradient, Write::Accumulate);
        }
        let term = self.graph.apply_shared(op, inputs)?[0];
        self.sum(root, gradient, term)
    }

    /// Output `j` of `op(inputs)` is a term of the gradient of `tensors[j]`, which are distinct.
    fn contribute_all(
        &mut self,
        tensors: &[Tensor],
        op: Arc<dyn Op>,
        inputs: &[Tensor],
    ) -> Result<()> {
        let specs = self.graph.output_specs(&*op, inputs)?;
        assert_eq!(specs.len(), tensors.len(), "{} gives one gradient per output", op.name());
        let node = self.graph.nodes.len();
        let mut outputs = Vec::with_capacity(specs.len());
        for (spec, &tensor) in specs.into_iter().zip(tensors) {
            let wanted = self.graph.tensors[tensor.0].differentiable;
            let kind = self.graph.tensors[self.graph.root(tensor).0].kind;
            outputs.push(match kind {
                Kind::Parameter(id) if wanted && op.accumulates() => self.gradient_buffer(id),
                _ => {
                    let made = self.graph.add_tensor(spec, Kind::Intermediate, Some(node), false);
                    (made, Write::Overwrite)
                }
            });
        }
        self.graph.push_node(op, inputs.to_vec(), outputs.clone())?;
        for (&tensor, (made, _)) in tensors.iter().zip(outputs) {
            let wanted = self.graph.tensors[tensor.0].differentiable;
            if wanted && self.graph.tensors[made.0].kind == Kind::Intermediate {
                self.share(tensor, made)?;
            }
        }
        Ok(())
    }

    /// The forward node becomes `op`, whose further outputs are terms of the gradients of
    /// `tensors`. It will run before every backward node, so that it must be the first to write
    /// each weight's gradient; what it makes cannot be made again. False if it must stay as it is.
    fn merge(&mut self, node: usize, tensors: &[Tensor], op: Arc<dyn Op>) -> Result<bool> {
        let Node { inputs, regions, .. } = self.graph.nodes[node].clone();
        let wanted = |t: Tensor| self.graph.tensors[t.0].differentiable;
        let wanted: Vec<bool> = tensors.iter().map(|&t| wanted(t)).collect();
        let parameter = |t: Tensor| match self.graph.tensors[self.graph.root(t).0].kind {
            Kind::Parameter(id) => Some(id),
            _ => None,
        };
        let parameters: Vec<Option<ParameterId>> = tensors
            .iter()
            .zip(&wanted)
            .map(|(&t, wanted)| parameter(t).filter(|_| *wanted))
            .collect();
        let taken = |id: &Option<ParameterId>| id.is_some_and(|id| self.written[id.0]);
        if regions != Regions::default() || parameters.iter().any(taken) {
            return Ok(false);
        }
        let specs = self.graph.output_specs(&*op, &inputs)?;
        let kept = specs.len() - tensors.len();
        let mut made = Vec::with_capacity(tensors.len());
        for (id, spec) in parameters.into_iter().zip(&specs[kept..]) {
            made.push(match id {
                Some(id) => self.gradient_buffer(id),
                None => {
                    let (spec, kind) = (spec.clone(), Kind::Intermediate);
                    (self.graph.add_tensor(spec, kind, Some(node), false), Write::Overwrite)
                }
            });
        }
        let merged = &mut self.graph.nodes[node];
        merged.op = op;
        // What was only saved for backward is made no more.
        merged.outputs.truncate(kept);
        merged.outputs.extend(&made);
        for ((&tensor, wanted), (made, _)) in tensors.iter().zip(wanted).zip(made) {
            if wanted && self.graph.tensors[made.0].kind == Kind::Intermediate {
                self.share(tensor, made)?;
            }
        }
        Ok(true)
    }

    /// Where the next term of a weight's gradient goes, and how it is written.
    fn gradient_buffer(&mut self, id: ParameterId) -> (Tensor, Write) {
        let first = !std::mem::replace(&mut self.written[id.0], true);
        let write = if first { Write::FirstInLane } else { Write::Accumulate };
        (self.graph.gradient_of(id), write)
    }

    /// The gradient of `root` becomes `gradient + term` in new memory.
    fn sum(&mut self, root: Tensor, gradient: Tensor, term: Tensor) -> Result<()> {
        let shape = self.graph.spec(root).shape.clone();
        let term = self.graph.reshape(term, &shape)?;
        let sum = add(self.graph, gradient, term)?;
        self.release(gradient);
        self.adopt(root, sum)
    }

    /// Backward may add to its own intermediates (not to inputs or step buffers) that nobody else
    /// still reads.
    fn may_add_to(&self, gradient: Tensor) -> bool {
        let memory = self.graph.root(gradient);
        let info = &self.graph.tensors[memory.0];
        let own = info.producer.is_some_and(|n| n >= self.forward_nodes);
        own && info.kind == Kind::Intermediate && self.readers.get(&memory) == Some(&1)
    }

    fn adopt(&mut self, root: Tensor, made: Tensor) -> Result<()> {
        let gradient = self.as_gradient(root, made)?;
        self.gradients.insert(root, gradient);
        let memory = self.graph.root(made);
        self.readers.insert(memory, 1);
        Ok(())
    }

    /// `made` under the shape of `root`, in the dtype in which it was made. A gradient that is live
    /// on fewer rows than its tensor would leave the others undefined, so it is refused.
    fn as_gradient(&mut self, root: Tensor, made: Tensor) -> Result<Tensor> {
        let (of, spec) = (self.graph.spec(root).clone(), self.graph.spec(made).clone());
        let fits = of.elements() == spec.elements() && spec.dtype.is_float();
        if !fits || spec.live.is_some() && spec.live != of.live {
            let what = format!("{spec} cannot be the gradient of {of}");
            return Err(self.graph.refuse("gradient", what));
        }
        let wanted = of.with_dtype(spec.dtype);
        if spec == wanted {
            return Ok(made);
        }
        let memory = self.graph.root(made);
        Ok(self.graph.add_tensor(wanted, Kind::Alias(memory), None, false))
    }
}

/// What a gradient rule sees: one forward node, and the gradients of its outputs.
#[derive(Debug)]
pub struct Backward<'s, 'g, 'v> {
    sweep: &'s mut Sweep<'g, 'v>,
    node: usize,
}

impl<'v> Backward<'_, '_, 'v> {
    /// Path of the forward node.
    pub fn path(&self) -> &str {
        &self.sweep.graph.nodes[self.node].path
    }

    /// The graph, to emit nodes whose results are only needed by this rule.
    pub fn graph(&mut self) -> &mut Graph<'v> {
        self.sweep.graph
    }

    /// Input `i` of the forward node, kept or rebuilt.
    ///
    /// # Errors
    /// Only if rebuilding it fails, which would be a defect of an op's shape rule.
    pub fn input(&mut self, i: usize) -> Result<Tensor> {
        let tensor = self.sweep.graph.nodes[self.node].inputs[i];
        self.sweep.saved.get(self.sweep.graph, tensor)
    }

    /// Output `i` of the forward node, kept or rebuilt.
    ///
    /// # Errors
    /// As [`Self::input`].
    pub fn output(&mut self, i: usize) -> Result<Tensor> {
        let tensor = self.sweep.graph.nodes[self.node].outputs[i].0;
        self.sweep.saved.get(self.sweep.graph, tensor)
    }

    /// Shape and dtype of input `i`.
    pub fn input_spec(&self, i: usize) -> &Spec {
        self.sweep.graph.spec(self.sweep.graph.nodes[self.node].inputs[i])
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.sweep.graph.nodes[self.node].inputs.len()
    }

    /// The gradient with respect to output `i`, or `None` when nothing flows back to it.
    pub fn gradient(&self, i: usize) -> Option<Tensor> {
        let output = self.sweep.graph.nodes[self.node].outputs[i].0;
        self.sweep.gradients.get(&output).copied()
    }

    /// The gradient with respect to output `i` of an op with a single differentiable output.
    ///
    /// # Errors
    /// [`Error::Plan`] when nothing flows back to it, which the sweep rules out for single outputs.
    pub fn need(&self, i: usize) -> Result<Tensor> {
        let path = self.path();
        self.gradient(i).ok_or_else(|| Error::Plan(format!("nothing flows back to {path}")))
    }

    /// Whether anybody asks for the gradient with respect to input `i`.
    pub fn wants(&self, i: usize) -> bool {
        let tensor = self.sweep.graph.nodes[self.node].inputs[i];
        self.sweep.graph.tensors[tensor.0].differentiable
    }

    /// Whether output `i` is the loss that backward starts from, or a plain term of it: its
    /// gradient is 1.
    pub fn is_root(&self, i: usize) -> bool {
        self.gradient(i).is_some() && self.gradient(i) == self.sweep.one
    }

    /// The forward node becomes `op`: the same, but perhaps without its last outputs, which only
    /// backward has read; behind the others come terms of the gradients with respect to the inputs
    /// `targets`, which are distinct. False if the node must stay as it is: then nothing has
    /// changed.
    ///
    /// # Errors
    /// Those of the op's shape rule.
    pub fn merge(&mut self, targets: &[usize], op: impl Op + 'static) -> Result<bool> {
        let node = &self.sweep.graph.nodes[self.node];
        let tensors: Vec<Tensor> = targets.iter().map(|&i| node.inputs[i]).collect();
        self.sweep.merge(self.node, &tensors, Arc::new(op))
    }

    /// `op(inputs)`, an op with one output, is a term of the gradient with respect to input `i`.
    ///
    /// # Errors
    /// Those of the op's shape rule.
    pub fn give(&mut self, i: usize, op: impl Op + 'static, inputs: &[Tensor]) -> Result<()> {
        let tensor = self.sweep.graph.nodes[self.node].inputs[i];
        self.sweep.contribute(tensor, Arc::new(op), inputs)
    }

    /// Output `j` of `op(inputs)` is a term of the gradient with respect to input `targets[j]`;
    /// what nobody asks for is dropped. The targets are distinct, and an op that accumulates can do
    /// so on every output.
    ///
    /// # Errors
    /// Those of the op's shape rule.
    pub fn give_all(
        &mut self,
        targets: &[usize],
        op: impl Op + 'static,
        inputs: &[Tensor],
    ) -> Result<()> {
        let node = &self.sweep.graph.nodes[self.node];
        let tensors: Vec<Tensor> = targets.iter().map(|&i| node.inputs[i]).collect();
        self.sweep.contribute_all(&tensors, Arc::new(op), inputs)
    }

    /// The existing tensor `gradient` is a term of the gradient with respect to input `i`.
    ///
    /// # Errors
    /// When the numbers of elements differ.
    pub fn pass(&mut self, i: usize, gradient: Tensor) -> Result<()> {
        let tensor = self.sweep.graph.nodes[self.node].inputs[i];
        self.sweep.share(tensor, gradient)
    }
}
