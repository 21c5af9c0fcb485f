//! Pairs of neighbouring nodes become one where an op can do the next one's work in its own pass.
//!
//! Runs after differentiation and before tensors get their places, so that models, gradient rules
//! and recompute know nothing of it, and a value that only the second op reads takes no memory. No
//! bit of any result changes. Afterwards no tensor's `producer` is right.

use std::sync::Arc;

use crate::graph::target::Target;
use crate::graph::{Graph, Kind, Node, Tensor, Write};
use crate::ops::{Op, Stream};

#[cfg(test)]
mod tests;

/// Fuses what it can.
pub(crate) fn fuse(graph: &mut Graph<'_>, target: Target) {
    let readers = readers(graph);
    let mut nodes = std::mem::take(&mut graph.nodes).into_iter().peekable();
    let mut fused = Vec::with_capacity(nodes.len());
    while let Some(node) = nodes.next() {
        let pair = nodes.peek().and_then(|next| pair(graph, &readers, &node, next, target));
        fused.push(match pair {
            Some(pair) => {
                nodes.next();
                pair
            }
            None => node,
        });
    }
    graph.nodes = fused;
}

/// By tensor that has memory of its own: how often nodes and fetches read it.
fn readers(graph: &Graph<'_>) -> Vec<usize> {
    let mut readers = vec![0; graph.tensors.len()];
    let inputs = graph.nodes.iter().flat_map(|n| n.inputs.iter().copied());
    for tensor in inputs.chain(graph.fetches.iter().map(|f| f.tensor)) {
        readers[graph.root(tensor).0] += 1;
    }
    readers
}

/// One node for `node` and `next`, if there is one.
fn pair(
    graph: &Graph<'_>,
    readers: &[usize],
    node: &Node,
    next: &Node,
    target: Target,
) -> Option<Node> {
    let &[(made, Write::Overwrite)] = &node.outputs[..] else { return None };
    let (&first, others) = next.inputs.split_first()?;
    let computes = |n: &Node| n.op.stream() == Stream::Compute;
    let plain = |&(t, write): &(Tensor, Write)| {
        graph.tensors[t.0].kind == Kind::Intermediate && write == Write::Overwrite
    };
    let fits = first == made
        && !others.iter().any(|&t| graph.root(t) == made)
        && node.outputs.iter().chain(&next.outputs).all(plain)
        && computes(node)
        && computes(next);
    if !fits {
        return None;
    }
    let keeps = readers[made.0] > 1;
    let op: Arc<dyn Op> = node.op.fused_with(next.op.fusible()?, keeps, target)?;
    let mut outputs = next.outputs.clone();
    if keeps {
        outputs.push((made, Write::Overwrite));
    }
    let inputs = node.inputs.iter().chain(others).copied().collect();
    let pair = Node { op, inputs, outputs, ..node.clone() };
    runs(graph, &pair, target).then_some(pair)
}

/// Whether the target can run a node: a GPU if it is told how.
fn runs(graph: &Graph<'_>, node: &Node, target: Target) -> bool {
    match target {
        Target::Cpu => true,
        Target::Gpu(gpu) => node.op.cuda(&graph.io(node), gpu).is_some(),
    }
}
