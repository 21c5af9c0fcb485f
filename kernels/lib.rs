//! With what Octet computes: devices, memory, ops, the graph that plans them, collectives.
//! Knows no training.

pub mod cpu;
pub mod dtype;
pub mod error;
pub mod memory;
pub mod random;
