//! Which nodes use which parameters and gradients: what the order of a step follows from.

use crate::graph::variables::ParameterId;
use crate::graph::{Graph, Kind};

/// A node's use of a parameter that travels between ranks, or of its gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// By its place in the program.
    pub node: usize,
    /// Whose.
    pub parameter: ParameterId,
    /// Its gradient is read or written; otherwise the parameter is read.
    pub gradient: bool,
}

/// In the order of the nodes.
pub(super) fn accesses(graph: &Graph<'_>) -> Vec<Access> {
    let mut accesses = Vec::new();
    for (node, about) in graph.nodes.iter().enumerate() {
        let first = accesses.len();
        for tensor in about.inputs.iter().copied().chain(about.outputs.iter().map(|o| o.0)) {
            let (parameter, gradient) = match graph.tensors[graph.root(tensor).0].kind {
                Kind::Parameter(id) => (id, false),
                Kind::Gradient(id) => (id, true),
                _ => continue,
            };
            let access = Access { node, parameter, gradient };
            if !accesses[first..].contains(&access) {
                accesses.push(access);
            }
        }
    }
    accesses
}
