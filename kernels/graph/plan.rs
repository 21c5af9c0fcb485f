//! The memory plan of one program: lifetimes, and an offset for every intermediate.
//!
//! Memory is reused only by a node that is ordered after its last reader on every stream: an
//! operand of a communication node lives until the first compute node that waits for that node.

use crate::graph::{Graph, Kind, Node, Tensor};
use crate::memory::REGION_ALIGNMENT;
use crate::ops::Stream;

/// Nodes `first..=last` need these bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime {
    pub(crate) first: usize,
    pub(crate) last: usize,
    pub(crate) bytes: usize,
}

impl Lifetime {
    fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// The lifetime of every tensor by handle; `None` for what does not live among the activations.
pub(crate) fn lifetimes(graph: &Graph<'_>) -> Vec<Option<Lifetime>> {
    let mut lives: Vec<Option<Lifetime>> = vec![None; graph.tensors.len()];
    let mut touch = |tensor: Tensor, from: usize, to: usize| {
        let root = graph.root(tensor);
        let info = &graph.tensors[root.0];
        if info.kind != Kind::Intermediate {
            return;
        }
        let bytes = info.spec.bytes();
        let life = lives[root.0].get_or_insert(Lifetime { first: from, last: to, bytes });
        life.first = life.first.min(from);
        life.last = life.last.max(to);
    };
    for (i, node) in graph.nodes.iter().enumerate() {
        let until = until(graph, i);
        for tensor in operands(node) {
            touch(tensor, i, until);
            if let Some(extent) = graph.spec(tensor).live {
                touch(extent, i, until);
            }
        }
    }
    let end = graph.nodes.len().saturating_sub(1);
    for fetch in &graph.fetches {
        touch(fetch.tensor, end, end);
    }
    lives
}

/// The last node during which the operands and the scratch of node `node` must stay untouched.
pub(crate) fn until(graph: &Graph<'_>, node: usize) -> usize {
    match graph.nodes[node].op.stream() {
        Stream::Compute => node,
        Stream::Communication | Stream::CopyIn | Stream::CopyOut => wait_point(graph, node),
    }
}

/// The first compute node that reads what communication node `node` makes; the end if none does.
fn wait_point(graph: &Graph<'_>, node: usize) -> usize {
    let made: Vec<Tensor> = graph.nodes[node].outputs.iter().map(|&(t, _)| graph.root(t)).collect();
    let waits = |n: &Node| {
        n.op.stream() == Stream::Compute && operands(n).any(|t| made.contains(&graph.root(t)))
    };
    (node + 1..graph.nodes.len()).find(|&i| waits(&graph.nodes[i])).unwrap_or(graph.nodes.len() - 1)
}

fn operands(node: &Node) -> impl Iterator<Item = Tensor> {
    node.inputs.iter().copied().chain(node.outputs.iter().map(|&(t, _)| t))
}

/// Gives every lifetime an offset such that no two that meet overlap, largest first at the lowest
/// place where it fits. Returns the offsets and the bytes needed.
pub(crate) fn pack(lives: &[Option<Lifetime>]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..lives.len()).filter(|&i| lives[i].is_some()).collect();
    order.sort_by_key(|&i| lives[i].map(|l| (std::cmp::Reverse(l.bytes), l.first)));
    let mut offsets = vec![0; lives.len()];
    let mut placed: Vec<(usize, usize, Lifetime)> = Vec::new();
    let mut total = 0;
    for i in order {
        let Some(life) = lives[i] else { continue };
        let bytes = life.bytes.next_multiple_of(REGION_ALIGNMENT);
        let mut offset = 0;
        // `placed` is sorted by offset: walk up past everything that meets and is in the way.
        for &(start, end, other) in &placed {
            if start >= offset + bytes {
                break;
            }
            if end > offset && other.meets(&life) {
                offset = end;
            }
        }
        offsets[i] = offset;
        total = total.max(offset + bytes);
        let at = placed.partition_point(|p| p.0 <= offset);
        placed.insert(at, (offset, offset + bytes, life));
    }
    (offsets, total)
}
