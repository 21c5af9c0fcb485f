//! Floats of 8 bits (Micikevicius et al., arXiv:2209.05433), bit by bit: what the CPU computes with
//! and GPUs must agree with.
//!
//! E4M3 reaches ±448 and has no infinity; E5M2 reaches ±57344. Rounding is to nearest, ties to
//! even; what is beyond the largest number, infinity included, becomes that number, as in the
//! conversions that GPUs have for it (`satfinite`). NaN stays NaN.

#[cfg(test)]
mod tests;

use crate::dtype::DType;

/// A format: bits of the mantissa, bias of the exponent, the code of its largest number.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    mantissa_bits: u32,
    bias: i32,
    largest: u8,
}

/// 4 bits of exponent, 3 of mantissa.
pub const E4M3: Format = Format { mantissa_bits: 3, bias: 7, largest: 0x7E };
/// 5 bits of exponent, 2 of mantissa.
pub const E5M2: Format = Format { mantissa_bits: 2, bias: 15, largest: 0x7B };

const NAN: u8 = 0x7F;
const SIGN: u8 = 0x80;

/// 2 to the power of a normal exponent.
#[inline(always)]
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

impl Format {
    /// The format of a dtype; `None` for one that is none of these.
    pub const fn of(dtype: DType) -> Option<Self> {
        match dtype {
            DType::F8E4M3 => Some(E4M3),
            DType::F8E5M2 => Some(E5M2),
            _ => None,
        }
    }

    /// Bits of the mantissa, bias of the exponent, the code of the largest number.
    pub(crate) fn parts(self) -> [u32; 3] {
        [self.mantissa_bits, self.bias as u32, u32::from(self.largest)]
    }

    /// The largest number.
    pub fn max(self) -> f32 {
        self.decode(self.largest)
    }

    /// The code nearest to `x`.
    #[inline(always)]
    pub fn encode(self, x: f32) -> u8 {
        let bits = x.to_bits();
        let sign = (bits >> 24) as u8 & SIGN;
        if x.is_nan() {
            return sign | NAN;
        }
        let lowest = 1 - self.bias;
        let exponent = (((bits >> 23) & 0xFF) as i32 - 127).clamp(lowest, 64);
        // In units of the last place: a power of two, so that the quotient is exact.
        let units = x.abs() * power_of_two(self.mantissa_bits as i32 - exponent);
        let units = units.min(64.0).round_ties_even() as i32;
        let code = ((exponent - lowest) << self.mantissa_bits) + units;
        sign | code.min(i32::from(self.largest)) as u8
    }

    /// What a code stands for.
    #[inline(always)]
    pub fn decode(self, code: u8) -> f32 {
        let magnitude = code & !SIGN;
        let (exponent, mantissa) = (
            i32::from(magnitude >> self.mantissa_bits),
            magnitude & ((1 << self.mantissa_bits) - 1),
        );
        let whole = i32::from(mantissa) + if exponent > 0 { 1 << self.mantissa_bits } else { 0 };
        let scale = exponent.max(1) - self.bias - self.mantissa_bits as i32;
        let value = match magnitude {
            m if m <= self.largest => whole as f32 * power_of_two(scale),
            m if m == self.largest + 1 && m != NAN => f32::INFINITY,
            _ => f32::NAN,
        };
        if code & SIGN == 0 { value } else { -value }
    }
}
