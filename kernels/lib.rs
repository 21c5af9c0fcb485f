//! With what Octet computes: devices, memory, ops, the graph that plans them, collectives.
//! Knows no training.

pub mod dtype;
pub mod error;
pub mod memory;
