//! The CPU device: threads, vector mathematics, matrix products.
//!
//! Whatever runs here gives the same bits for any number of threads and any instruction set.

pub mod pool;
