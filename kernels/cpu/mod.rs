//! The CPU device: threads, vector mathematics, matrix products.
//!
//! Whatever runs here gives the same bits for any number of threads and any instruction set.

pub mod pool;
mod run;

pub use run::CpuRun;

/// The CPU as a device.
pub struct CpuDevice {
    /// Its threads.
    pub pool: pool::Pool,
}
impl CpuDevice {
    /// A device of that many threads.
    pub fn new(threads: usize) -> Self {
        Self { pool: pool::Pool::new(threads) }
    }
}
