//! With what Octet computes. Knows no training.
//!
//! | Module | Holds |
//! |---|---|
//! | [`graph`] | trace once, differentiate, plan memory, run a range of nodes |
//! | [`ops`] | one folder per op: contract, gradient, CPU run, oracle, tests |
//! | [`collectives`] | what ranks do together, and the fixed tree of sums |
//! | [`device`] | memory, and work in the order of streams, on whichever device |
//! | [`cpu`] | the CPU device: threads, vector mathematics, matrix products |
//! | [`cuda`] | NVIDIA GPUs |
//! | [`launch`] | what an op asks of a GPU, as data |
//! | [`operands`] | where a node's operands lie in a run |
//! | [`memory`] | the arena and its plan |
//! | [`update`] | how an optimizer changes parameters: a rule over state vectors |
//! | [`random`] | counter-based random numbers |
//! | [`shape`], [`dtype`], [`f8`], [`error`] | what everything speaks in |
//! | [`testing`], [`lazy`] | how ops are tested; a device that does its work late, for tests |
//! | [`emulator`] | kernels for GPUs run thread by thread without one, for tests |

pub mod collectives;
pub mod cpu;
pub mod cuda;
pub mod device;
pub mod dtype;
pub mod emulator;
pub mod error;
pub mod f8;
pub mod graph;
pub mod launch;
pub mod lazy;
pub mod memory;
pub mod operands;
pub mod ops;
pub mod random;
pub mod shape;
pub mod testing;
pub mod update;
