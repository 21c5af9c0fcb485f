//! What a plan is made for: a GPU that need not be there, or this machine's CPU.

use octet_kernels::cpu::measure_cpu;
use octet_kernels::dtype::DType;
use octet_kernels::dtype::Precision;
use octet_kernels::graph::{Peaks, Target};

/// A machine with as many devices as a run has ranks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// The kind of device.
    pub target: Target,
    /// What was measured of a CPU as a whole; its ranks share it.
    measured: Option<Peaks>,
}

impl Machine {
    /// Devices by their data sheet. For a CPU there is none: see [`Self::cpu`].
    pub fn gpus(target: Target) -> Self {
        Self { target, measured: None }
    }

    /// A CPU of known peaks.
    pub fn cpu(peaks: Peaks) -> Self {
        Self { target: Target::Cpu, measured: Some(peaks) }
    }

    /// This machine's CPU, measured with all cores for products of that precision until it is
    /// stable: in some tenths of a second.
    pub fn this_cpu(precision: Precision) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::cpu(measure_cpu(cores, precision))
    }

    /// What one of `ranks` ranks can do whose matrices are stored as `dtype`. Panics for a CPU that
    /// was not measured.
    pub fn peaks(&self, dtype: DType, ranks: usize) -> Peaks {
        let shared = || self.measured.expect("a CPU is measured").shared(ranks);
        self.target.peaks(dtype).unwrap_or_else(shared)
    }
}

/// Memory of this machine, or what its container may use if that is less; `None` if the system
/// does not tell.
pub fn total_memory() -> Option<u64> {
    let text = |path: &str| std::fs::read_to_string(path).ok();
    let machine = text("/proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    });
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let container = limits.into_iter().find_map(text).and_then(|text| text.trim().parse().ok());
    machine.into_iter().chain(container).min()
}
