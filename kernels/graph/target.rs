//! The devices that a program can be planned for, and what is known of each without having one.
//!
//! Figures of devices are those of their data sheets; budgets are decisions, allowances are
//! estimates and say so. Prohibition: nothing here looks at the machine it runs on.

use crate::cpu::CpuDevice;
use crate::cpu::gemm::{Matrix, Output, Size};
use crate::dtype::{DType, Precision};
use crate::graph::cost::Peaks;

/// What a program is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Target {
    /// The CPU: narrow operands of an op stand widened to `F32` beside it while it runs.
    #[default]
    Cpu,
    /// NVIDIA H100 SXM, 80 GB.
    H100,
    /// NVIDIA H200 SXM, 141 GB.
    H200,
}

/// Workspace of cuBLASLt on a Hopper GPU: what its documentation recommends for them.
const BLAS_BYTES: usize = 32 << 20;
/// Workspace of cuDNN. A budget: plans that ask for more are no candidates.
const DNN_BYTES: usize = 64 << 20;

/// What a CUDA context takes of the device's memory. An allowance, not measured yet.
const CONTEXT_BYTES: usize = 600 << 20;
/// What loaded modules and their local memory take. An allowance, not measured yet.
const MODULE_BYTES: usize = 300 << 20;
/// What NCCL takes for channels and peers, with several ranks. An allowance, not measured yet.
const NCCL_BYTES: usize = 1 << 30;

/// NVLink 4 of an SXM board: 18 links of 25 GB/s each way (data sheet: 900 GB/s both ways).
const NVLINK_BYTES_PER_S: f64 = 450e9;
/// PCIe 5.0 x16: 64 GB/s less the packets' overhead, the usual figure for large pinned copies.
const PCIE_BYTES_PER_S: f64 = 50e9;

impl Target {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::H100, Self::H200];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::H100 => "h100",
            Self::H200 => "h200",
        }
    }

    /// Whether ops need their narrow operands widened in the arena. GPUs widen in registers.
    pub const fn widens(self) -> bool {
        matches!(self, Self::Cpu)
    }

    /// Whether it runs fused pairs of ops. A GPU's plan has none until its kernels exist.
    pub const fn fuses(self) -> bool {
        matches!(self, Self::Cpu)
    }

    /// Workspaces of libraries inside the arena, each by reason.
    pub fn libraries(self) -> &'static [(&'static str, usize)] {
        match self {
            Self::Cpu => &[],
            Self::H100 | Self::H200 => &[("cuBLASLt", BLAS_BYTES), ("cuDNN", DNN_BYTES)],
        }
    }

    /// The sum of [`Self::libraries`].
    pub fn library_bytes(self) -> usize {
        self.libraries().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Memory of the device outside the arena, each by reason. Nothing on the CPU: what a process
    /// takes there is not the device's.
    pub fn outside(self, ranks: usize) -> Vec<(&'static str, usize)> {
        let mut parts = match self {
            Self::Cpu => return Vec::new(),
            Self::H100 | Self::H200 => vec![("context", CONTEXT_BYTES), ("modules", MODULE_BYTES)],
        };
        if ranks > 1 {
            parts.push(("NCCL", NCCL_BYTES));
        }
        parts
    }

    /// Memory of the device in bytes, as its driver reports it; `None` for the CPU, whose memory
    /// is the machine's.
    pub const fn memory_bytes(self) -> Option<usize> {
        match self {
            Self::Cpu => None,
            // 81,559 and 143,771 MiB, as nvidia-smi shows them.
            Self::H100 => Some(81_559 << 20),
            Self::H200 => Some(143_771 << 20),
        }
    }

    /// Peaks from the data sheet for matrix products of that dtype, dense: bf16 989.4 TFLOP/s, and
    /// half of it for f32 operands (TF32). `None` for the CPU, which is measured.
    pub fn peaks(self, dtype: DType) -> Option<Peaks> {
        let bytes_per_s = match self {
            Self::Cpu => return None,
            Self::H100 => 3.35e12,
            Self::H200 => 4.8e12,
        };
        let flops_per_s = if dtype.is_narrow() { 989.4e12 } else { 494.7e12 };
        let (link, host) = (Some(NVLINK_BYTES_PER_S), Some(PCIE_BYTES_PER_S));
        Some(Peaks { flops_per_s, bytes_per_s, link_bytes_per_s: link, host_bytes_per_s: host })
    }
}

/// Side of the square matrices whose product is the CPU's peak.
const SIDE: usize = 256;
/// Bytes that are copied to find the CPU's bandwidth: more than its nearer caches hold.
const COPIED: usize = 32 << 20;

/// Peaks of the CPU with so many threads for products of that precision, measured in some tens of
/// milliseconds.
pub fn measure_cpu(threads: usize, precision: Precision) -> Peaks {
    let device = CpuDevice::new(threads);
    let (a, b) = (vec![1.0f32; SIDE * SIDE], vec![1.0f32; SIDE * SIDE]);
    let mut c = vec![0.0f32; SIDE * SIDE];
    let size = Size { m: SIDE, n: SIDE, k: SIDE };
    let mut product = || {
        let output = Output::new(&mut c, SIDE, false);
        let [a, b] = [&a, &b].map(|data| Matrix::rows(data, SIDE).rounded(precision));
        device.gemm(size, a, b, output);
    };
    product();
    let multiplying = best(12, &mut product);
    let source = vec![1u8; COPIED];
    let mut target = vec![0u8; COPIED];
    let copying = best(4, &mut || {
        let chunk = COPIED.div_ceil(threads);
        let (from, to) = (source.chunks(chunk), target.chunks_mut(chunk));
        std::thread::scope(|scope| {
            for (from, to) in from.zip(to) {
                scope.spawn(move || to.copy_from_slice(from));
            }
        });
        std::hint::black_box(&mut target);
    });
    Peaks {
        flops_per_s: 2.0 * (SIDE * SIDE * SIDE) as f64 / multiplying,
        // Each byte is read and written.
        bytes_per_s: 2.0 * COPIED as f64 / copying,
        link_bytes_per_s: None,
        host_bytes_per_s: None,
    }
}

/// The fastest of `times` runs, in seconds.
fn best(times: usize, run: &mut dyn FnMut()) -> f64 {
    let one = |_| {
        let start = std::time::Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..times).map(one).fold(f64::INFINITY, f64::min)
}
