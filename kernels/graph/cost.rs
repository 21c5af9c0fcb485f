//! What an op costs: the two numbers of the roofline, and the peaks that they are held against.

use std::iter::Sum;
use std::ops::Add;

/// What a device can do at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peaks {
    /// FLOP/s of matrix products.
    pub flops_per_s: f64,
    /// Bytes/s of its memory.
    pub bytes_per_s: f64,
    /// Bytes/s to other devices, each way; `None` where ranks share one memory.
    pub link_bytes_per_s: Option<f64>,
    /// Bytes/s from the host; `None` where the host's memory is the device's.
    pub host_bytes_per_s: Option<f64>,
}

impl Peaks {
    /// What one of `ranks` has that share a device equally.
    pub fn shared(self, ranks: usize) -> Self {
        let share = ranks.max(1) as f64;
        Self {
            flops_per_s: self.flops_per_s / share,
            bytes_per_s: self.bytes_per_s / share,
            ..self
        }
    }
}

/// Floating-point operations and bytes moved to and from memory.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// A multiply-add counts two.
    pub flops: f64,
    /// Reads and writes of operands, each once.
    pub bytes: f64,
}

impl Cost {
    /// Seconds at a device's peaks: the larger of the two times.
    pub fn seconds(self, peaks: &Peaks) -> f64 {
        (self.flops / peaks.flops_per_s).max(self.bytes / peaks.bytes_per_s)
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { flops: self.flops + other.flops, bytes: self.bytes + other.bytes }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}
