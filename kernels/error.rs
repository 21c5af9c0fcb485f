//! The typed errors of this package. Nothing here is printed; callers decide.

use thiserror::Error;

/// What can go wrong while a graph is built, planned or run.
#[derive(Debug, Clone, Error)]
pub enum Error {
    /// An op refuses the shapes or dtypes of its operands, while the graph is being built.
    #[error("{op} at {path}: {what}")]
    Shape {
        /// Name of the op.
        op: &'static str,
        /// Path of the node, for example `block.3.attention`.
        path: String,
        /// What was expected and what was given.
        what: String,
    },
    /// The gradient of an op was asked for and it has none.
    #[error("{op} at {path} has no gradient; stop_gradient in front of it, or train elsewhere")]
    NoGradient {
        /// Name of the op.
        op: &'static str,
        /// Path of the node.
        path: String,
    },
    /// A graph, goal or plan contradicts itself.
    #[error("{0}")]
    Plan(String),
    /// A collective ended because another rank left, or took longer than its limit.
    #[error("collective {what} on rank {rank}: {why}")]
    Collective {
        /// The collective's name.
        what: &'static str,
        /// The rank that reports.
        rank: usize,
        /// Timed out, or who aborted.
        why: String,
    },
    /// The device refused: memory, launch, library.
    #[error("device: {0}")]
    Device(String),
    /// It has less memory than is asked for: another try would find the same.
    #[error("device: {0}")]
    OutOfMemory(String),
    /// Its context is unusable from now on: another process can go on with the device.
    #[error("device: {0}")]
    Broken(String),
    /// It is gone, or its memory or links fail.
    #[error("device: {0}")]
    Lost(String),
}

impl Error {
    /// The same, and where: of a device's error.
    pub(crate) fn within(self, place: &str) -> Self {
        let at = |what: String| format!("{place}: {what}");
        match self {
            Self::Device(what) => Self::Device(at(what)),
            Self::OutOfMemory(what) => Self::OutOfMemory(at(what)),
            Self::Broken(what) => Self::Broken(at(what)),
            Self::Lost(what) => Self::Lost(at(what)),
            other => other,
        }
    }
}

/// Result with this package's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;
