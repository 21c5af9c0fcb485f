//! The CPU device: threads, vector mathematics, matrix products.
//!
//! Whatever runs here gives the same bits for any number of threads and any instruction set.

mod device;
pub mod gemm;
pub mod isa;
mod measure;
mod moments;
pub(crate) mod philox;
pub mod pool;
pub(crate) mod rows;
mod run;
pub(crate) mod softmax;
#[cfg(test)]
mod tests;
pub(crate) mod update;
pub mod vector;
pub(crate) mod widen;

pub(crate) use device::open;
pub use measure::measure_cpu;
pub use run::CpuRun;

/// Threads, their instructions and their packing memory.
pub struct CpuDevice {
    /// Its threads.
    pub pool: pool::Pool,
    /// Its instructions.
    pub isa: isa::Isa,
    /// Where its threads pack the operands of matrix products.
    pub scratch: gemm::Scratch,
    clock: device::EventClock,
}

impl CpuDevice {
    /// A device of that many threads, with the best instructions this CPU has.
    ///
    /// Panics if the system refuses a thread.
    pub fn new(threads: usize) -> Self {
        Self::with_isa(threads, isa::Isa::detect())
    }

    /// Likewise, with these instructions.
    pub fn with_isa(threads: usize, isa: isa::Isa) -> Self {
        let scratch = gemm::Scratch::new(isa, threads).expect("a few megabytes for each thread");
        Self { pool: pool::Pool::new(threads), isa, scratch, clock: device::EventClock::default() }
    }

    /// Threads that compute, the caller included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Bytes of memory it holds besides arenas.
    pub fn host_bytes(&self) -> usize {
        self.scratch.bytes()
    }

    /// Bytes that a device of that many threads holds on this machine besides arenas.
    pub fn host_bytes_for(threads: usize) -> usize {
        gemm::Scratch::bytes_for(isa::Isa::detect(), threads)
    }

    /// C = A·B or C += A·B on all threads; see [`gemm::gemm`].
    pub fn gemm(
        &self,
        size: gemm::Size,
        a: gemm::Matrix<'_>,
        b: gemm::Matrix<'_>,
        c: gemm::Output<'_>,
    ) {
        gemm::gemm(&self.pool, &self.scratch, size, a, b, c);
    }
}
