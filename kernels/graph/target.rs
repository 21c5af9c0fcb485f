//! The devices that a program can be planned for, by what they have: a GPU is its properties, and
//! its name is one of them.
//!
//! Presets are figures of data sheets; budgets are decisions, allowances are estimates and say so.
//! Prohibition: nothing here looks at the machine it runs on. Who finds a card says what it has
//! ([`Gpu::probed`]).

use crate::dtype::DType;
use crate::graph::cost::Peaks;

#[cfg(test)]
mod tests;

/// What a program is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Target {
    /// The CPU: narrow operands of an op stand widened to `F32` beside it while it runs.
    #[default]
    Cpu,
    /// A GPU with these properties.
    Gpu(&'static Gpu),
}

/// What is known of a kind of GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gpu {
    /// On the command line, in plans and manifests.
    pub name: &'static str,
    /// Compute capability, major and minor: which kernels there are for it.
    pub architecture: [u32; 2],
    /// How many blocks of threads compute at once, at least.
    pub multiprocessors: u32,
    /// Shared memory that one block can have.
    pub shared_bytes: u32,
    /// Memory, as its driver reports it.
    pub memory_bytes: usize,
    /// Dense matrix products of bf16 and f16 operands with sums in f32, FLOP/s.
    pub half_flops_per_s: f64,
    /// Of f32 operands (TF32).
    pub single_flops_per_s: f64,
    /// Of 8-bit floats, if it has such products.
    pub eighth_flops_per_s: Option<f64>,
    /// Bandwidth of its memory.
    pub bytes_per_s: f64,
    /// To other GPUs, each way.
    pub link_bytes_per_s: f64,
    /// From the host.
    pub host_bytes_per_s: f64,
}

/// NVIDIA A100 SXM, 80 GB.
pub static A100: Gpu = Gpu {
    name: "a100",
    architecture: [8, 0],
    multiprocessors: 108,
    shared_bytes: 163 << 10,
    memory_bytes: 81_920 << 20,
    half_flops_per_s: 312e12,
    single_flops_per_s: 156e12,
    eighth_flops_per_s: None,
    bytes_per_s: 2.039e12,
    // NVLink 3: 12 links of 25 GB/s each way.
    link_bytes_per_s: 300e9,
    host_bytes_per_s: PCIE4_BYTES_PER_S,
};

/// NVIDIA H100 SXM, 80 GB.
pub static H100: Gpu = Gpu {
    name: "h100",
    architecture: [9, 0],
    multiprocessors: 132,
    shared_bytes: 227 << 10,
    memory_bytes: 81_559 << 20,
    half_flops_per_s: 989.4e12,
    single_flops_per_s: 494.7e12,
    eighth_flops_per_s: Some(1978.9e12),
    bytes_per_s: 3.35e12,
    // NVLink 4: 18 links of 25 GB/s each way.
    link_bytes_per_s: 450e9,
    host_bytes_per_s: PCIE5_BYTES_PER_S,
};

/// NVIDIA H200 SXM, 141 GB: the same chip with other memory.
pub static H200: Gpu =
    Gpu { name: "h200", memory_bytes: 143_771 << 20, bytes_per_s: 4.8e12, ..H100 };

/// NVIDIA B200 SXM, 180 GB.
pub static B200: Gpu = Gpu {
    name: "b200",
    architecture: [10, 0],
    multiprocessors: 148,
    memory_bytes: 183_359 << 20,
    half_flops_per_s: 2250e12,
    single_flops_per_s: 1125e12,
    eighth_flops_per_s: Some(4500e12),
    bytes_per_s: 8e12,
    // NVLink 5: 18 links of 50 GB/s each way.
    link_bytes_per_s: 900e9,
    ..H100
};

/// NVIDIA GeForce RTX 4090, 24 GB. It has no links: ranks meet over PCIe.
pub static RTX_4090: Gpu = Gpu {
    name: "rtx4090",
    architecture: [8, 9],
    multiprocessors: 128,
    shared_bytes: 99 << 10,
    memory_bytes: 24_564 << 20,
    half_flops_per_s: 165.2e12,
    single_flops_per_s: 82.6e12,
    eighth_flops_per_s: Some(330.3e12),
    bytes_per_s: 1.008e12,
    link_bytes_per_s: PCIE4_BYTES_PER_S,
    host_bytes_per_s: PCIE4_BYTES_PER_S,
};

/// PCIe 5.0 x16: 64 GB/s less the packets' overhead, the usual figure for large pinned copies.
const PCIE5_BYTES_PER_S: f64 = 50e9;
/// PCIe 4.0 x16: half of that.
const PCIE4_BYTES_PER_S: f64 = 25e9;

/// Workspace of cuBLASLt: what its documentation recommends for Hopper, which is the most.
pub(crate) const BLAS_BYTES: usize = 32 << 20;

/// What a CUDA context takes of the device's memory with our kernels loaded: 536 MiB on an H200
/// with driver 580.
const CONTEXT_BYTES: usize = 560 << 20;
/// What cuBLASLt takes there beside its workspace: 377 MiB.
const MODULE_BYTES: usize = 400 << 20;
/// What NCCL takes for channels and peers, with several ranks. An allowance, not measured yet.
const NCCL_BYTES: usize = 1 << 30;

impl Gpu {
    /// The kinds that are known without a card.
    pub const PRESETS: [&'static Self; 5] = [&A100, &H100, &H200, &B200, &RTX_4090];

    /// A card that was found: kept for as long as the process lives, once for each kind.
    pub fn probed(found: Self) -> &'static Self {
        Box::leak(Box::new(found))
    }

    /// Whether the tensor memory accelerator and warpgroup products of Hopper are there.
    pub const fn is_hopper(&self) -> bool {
        self.architecture[0] == 9
    }

    /// For matrix products of operands of that dtype.
    fn flops_per_s(&self, dtype: DType) -> f64 {
        match dtype {
            DType::Bf16 | DType::F16 => self.half_flops_per_s,
            _ => self.single_flops_per_s,
        }
    }
}

impl Target {
    /// The preset of that name.
    pub const H100: Self = Self::Gpu(&H100);
    /// The preset of that name.
    pub const H200: Self = Self::Gpu(&H200);

    /// The target of that name: `cpu`, or a preset.
    pub fn named(name: &str) -> Option<Self> {
        if name == "cpu" {
            return Some(Self::Cpu);
        }
        Gpu::PRESETS.into_iter().find(|gpu| gpu.name == name).map(Self::Gpu)
    }

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu(gpu) => gpu.name,
        }
    }

    /// Whether ops need their narrow operands widened in the arena. GPUs widen in registers.
    pub const fn widens(self) -> bool {
        matches!(self, Self::Cpu)
    }

    /// Workspaces of libraries inside the arena, each by reason.
    pub fn libraries(self) -> &'static [(&'static str, usize)] {
        match self {
            Self::Cpu => &[],
            Self::Gpu(_) => &[("cuBLASLt", BLAS_BYTES)],
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
            Self::Gpu(_) => vec![("context", CONTEXT_BYTES), ("modules", MODULE_BYTES)],
        };
        if ranks > 1 {
            parts.push(("NCCL", NCCL_BYTES));
        }
        parts
    }

    /// Memory of the device; `None` for the CPU, whose memory is the machine's.
    pub const fn memory_bytes(self) -> Option<usize> {
        match self {
            Self::Cpu => None,
            Self::Gpu(gpu) => Some(gpu.memory_bytes),
        }
    }

    /// Peaks for matrix products of operands of that dtype. `None` for the CPU, which is measured.
    pub fn peaks(self, dtype: DType) -> Option<Peaks> {
        let Self::Gpu(gpu) = self else { return None };
        Some(Peaks {
            flops_per_s: gpu.flops_per_s(dtype),
            bytes_per_s: gpu.bytes_per_s,
            link_bytes_per_s: Some(gpu.link_bytes_per_s),
            host_bytes_per_s: Some(gpu.host_bytes_per_s),
        })
    }
}
