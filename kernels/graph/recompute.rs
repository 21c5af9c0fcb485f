//! Which forward tensors are kept for backward and which are computed again.
//!
//! A dropped tensor is rebuilt by clones of the nodes that made it, appended just before the first
//! backward node that reads it. Clones draw the same random numbers, since those are keyed by site.

use std::collections::HashMap;

use crate::error::Result;
use crate::graph::{Graph, Kind, Node, Tensor};
use crate::ops::Class;

/// A stretch of a model that can be dropped and rebuilt as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Region {
    /// One transformer block.
    Block,
    /// The feed-forward part of a block.
    FeedForward,
}

/// How much of the forward pass is computed twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Recompute {
    /// Keep everything.
    #[default]
    None,
    /// Rebuild norms and activation functions.
    NormActivation,
    /// Rebuild feed-forward regions, norms and activation functions.
    FeedForward,
    /// Keep only what crosses the border of a block.
    Block,
}

impl Recompute {
    /// From the cheapest in time to the cheapest in memory.
    pub const ALL: [Self; 4] = [Self::None, Self::NormActivation, Self::FeedForward, Self::Block];

    /// The name used in configurations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::NormActivation => "norm_activation",
            Self::FeedForward => "feed_forward",
            Self::Block => "block",
        }
    }
}

/// Recompute by block: the first `blocks` blocks of the model under `more`, all else under `rest`.
///
/// The first blocks are those whose insides would be kept longest. The last ones are where backward
/// begins, when most is kept: what they do not keep would have to be rebuilt on top of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mix {
    /// For the first blocks.
    pub more: Recompute,
    /// How many those are.
    pub blocks: usize,
    /// For everything else.
    pub rest: Recompute,
}

impl Mix {
    /// The policy of block number `block`, of what is outside of blocks for `None`.
    fn of(self, block: Option<usize>) -> Recompute {
        match block {
            Some(block) if block < self.blocks => self.more,
            _ => self.rest,
        }
    }
}

impl From<Recompute> for Mix {
    fn from(all: Recompute) -> Self {
        Self { more: all, blocks: 0, rest: all }
    }
}

/// Maps forward tensors to what backward reads in their place.
#[derive(Debug)]
pub(crate) struct Saved {
    dropped: Vec<bool>,
    rebuilt: HashMap<Tensor, Tensor>,
}

impl Saved {
    /// Decides for every tensor of the forward graph.
    pub(crate) fn new(graph: &Graph<'_>, mix: Mix) -> Self {
        let mut dropped = vec![false; graph.tensors.len()];
        let blocks = graph.blocks();
        let policy_of = |node: &Node| {
            let number = |instance| blocks.iter().position(|&b| b == instance);
            mix.of(node.regions.block.and_then(number))
        };
        for node in graph.nodes.iter().filter(|node| rebuildable(graph, node)) {
            let cheap = node.op.class() != Class::Other;
            let drop = match policy_of(node) {
                Recompute::None => false,
                Recompute::NormActivation => cheap,
                Recompute::FeedForward => cheap || node.regions.feed_forward.is_some(),
                Recompute::Block => node.regions.block.is_some(),
            };
            for &(t, _) in &node.outputs {
                dropped[t.0] = drop;
            }
        }
        // What leaves its region is kept: it is where the next region starts again.
        for node in &graph.nodes {
            for &t in &node.inputs {
                let root = graph.root(t);
                let Some(producer) = graph.tensors[root.0].producer else { continue };
                let producer = &graph.nodes[producer];
                let (from, to) = (producer.regions, node.regions);
                let keep = match policy_of(producer) {
                    Recompute::Block => from.block != to.block,
                    Recompute::FeedForward => {
                        from.feed_forward != to.feed_forward && producer.op.class() == Class::Other
                    }
                    Recompute::None | Recompute::NormActivation => false,
                };
                if keep {
                    dropped[root.0] = false;
                }
            }
        }
        Self { dropped, rebuilt: HashMap::new() }
    }

    /// The tensor that backward reads for `tensor`: itself, or a clone built now.
    pub(crate) fn get(&mut self, graph: &mut Graph<'_>, tensor: Tensor) -> Result<Tensor> {
        let root = graph.root(tensor);
        if !self.dropped.get(root.0).copied().unwrap_or(false) {
            return Ok(tensor);
        }
        let clone = match self.rebuilt.get(&root) {
            Some(&clone) => clone,
            None => self.rebuild(graph, root)?,
        };
        if root == tensor {
            return Ok(clone);
        }
        let spec = graph.spec(tensor).clone();
        Ok(graph.add_tensor(spec, Kind::Alias(clone), None, false))
    }

    fn rebuild(&mut self, graph: &mut Graph<'_>, root: Tensor) -> Result<Tensor> {
        let producer = graph.tensors[root.0].producer.expect("a dropped tensor has a producer");
        let node = graph.nodes[producer].clone();
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for &input in &node.inputs {
            inputs.push(self.get(graph, input)?);
        }
        let rule = graph.spot();
        graph.go_to(&node);
        let clones = graph.apply_shared(node.op, &inputs);
        // What comes after belongs to the rule that asked, its random site included.
        graph.go_back(rule);
        let clones = clones?;
        for (&(original, _), &clone) in node.outputs.iter().zip(&clones) {
            self.rebuilt.insert(original, clone);
        }
        Ok(self.rebuilt[&root])
    }
}

/// A node whose second run gives what the first gave: it reads nothing that the program changes,
/// and its results are plain intermediates. Integers (indices, extents) are small and always kept.
fn rebuildable(graph: &Graph<'_>, node: &Node) -> bool {
    let plain = |t: Tensor| {
        let info = &graph.tensors[t.0];
        info.kind == Kind::Intermediate && info.spec.dtype.is_float()
    };
    let steady =
        |t: Tensor| !matches!(graph.tensors[graph.root(t).0].kind, Kind::State(_) | Kind::Step(..));
    node.outputs.iter().all(|&(t, _)| plain(t)) && node.inputs.iter().all(|&t| steady(t))
}
