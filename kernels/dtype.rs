//! Storage types of tensors. A dtype belongs to the tensor, never to the backend.

use std::fmt;

/// How one element is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE binary32.
    F32,
    /// IEEE binary64: loss sums and norms only.
    F64,
    /// bfloat16.
    Bf16,
    /// IEEE binary16.
    F16,
    /// 8 bits, 4 of them exponent, no infinity (arXiv:2209.05433). Stands for itself times the
    /// scale in the `F32` tensor beside it.
    F8E4M3,
    /// 8 bits, 5 of them exponent. Likewise with a scale.
    F8E5M2,
    /// Signed 32-bit integer: tokens, labels, positions, segments, live extents.
    I32,
    /// Signed 64-bit integer: counters.
    I64,
    /// Byte.
    U8,
}

/// To what the operands of a linear layer's products are rounded. Sums are `F32` either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// Not at all: they are what they are stored as.
    #[default]
    F32,
    /// To bfloat16, what is below its normal range to zero.
    Bf16,
}

impl DType {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::F32,
        Self::F64,
        Self::Bf16,
        Self::F16,
        Self::F8E4M3,
        Self::F8E5M2,
        Self::I32,
        Self::I64,
        Self::U8,
    ];

    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::U8 | Self::F8E4M3 | Self::F8E5M2 => 1,
        }
    }

    /// True for floating-point storage.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::Bf16 | Self::F16) || self.is_eighth()
    }

    /// True for floats of 8 bits, which mean nothing without their scale.
    pub const fn is_eighth(self) -> bool {
        matches!(self, Self::F8E4M3 | Self::F8E5M2)
    }

    /// True for floats that the CPU widens to `F32` before it computes and rounds when it stores.
    pub const fn is_narrow(self) -> bool {
        matches!(self, Self::Bf16 | Self::F16)
    }

    /// True for what every op computes in `F32`: that, and the floats that are widened to it.
    pub const fn widens_to_f32(self) -> bool {
        matches!(self, Self::F32) || self.is_narrow()
    }

    /// The lower-case name used in configurations and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F8E4M3 => "f8_e4m3",
            Self::F8E5M2 => "f8_e5m2",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::U8 => "u8",
        }
    }

    /// The inverse of [`Self::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
