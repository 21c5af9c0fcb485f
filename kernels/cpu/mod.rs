//! The CPU device: threads, vector mathematics, matrix products.
//!
//! Whatever runs here gives the same bits for any number of threads and any instruction set.

pub mod isa;
pub mod pool;
mod run;
pub mod vector;

pub use run::CpuRun;

/// The CPU as a device.
pub struct CpuDevice {
    /// Its threads.
    pub pool: pool::Pool,
    /// Its instructions.
    pub isa: isa::Isa,
}

impl CpuDevice {
    /// A device of that many threads, with the best instructions this CPU has.
    pub fn new(threads: usize) -> Self {
        Self { pool: pool::Pool::new(threads), isa: isa::Isa::detect() }
    }
}
