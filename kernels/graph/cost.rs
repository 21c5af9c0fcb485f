//! What an op costs: the two numbers of the roofline.

use std::iter::Sum;
use std::ops::Add;

/// Floating-point operations and bytes moved to and from memory.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// A multiply-add counts two.
    pub flops: f64,
    /// Reads and writes of operands, each once.
    pub bytes: f64,
}

impl Cost {
    /// Seconds at a device's peaks (FLOP/s, bytes/s): the larger of the two times.
    pub fn seconds(self, flops_per_s: f64, bytes_per_s: f64) -> f64 {
        (self.flops / flops_per_s).max(self.bytes / bytes_per_s)
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
