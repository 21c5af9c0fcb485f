//! State vectors of optimizers in 16 and 8 bits, rounded at random to one of the two neighbours:
//! upwards as likely as a value is near the upper one, so that the mean is the value.
//!
//! Eight bits: each [`SCALED`] values share a power of two, that of the largest magnitude `y` among
//! them, written as its biased exponent. With `M` bits of mantissa a code is `16 · 2^M` steps: the
//! quotient `q < 2` of a value and the scale has code `(exponent(q) + 14) << M` and its mantissa
//! where `exponent(q) ≥ -13`, below that it is a multiple of `2^(-13 - M)`. What rounds up to 2 has
//! a code too.

use crate::cpu::isa::dispatch;
use crate::update::SCALED;

#[cfg(test)]
mod tests;

/// Bits of the mantissa beside a sign, and without one.
const SIGNED: u32 = 3;
const UNSIGNED: u32 = 4;

/// Biased exponent of the quotients whose codes have exponent 0 but for the subnormal ones.
const LOWEST: u32 = 113;

/// 2^(exponent - 127), `exponent` being at most 254.
#[inline(always)]
fn power_of_two(exponent: u32) -> f32 {
    f32::from_bits(if exponent == 0 { 1 << 22 } else { exponent << 23 })
}

/// 2^(-13 - M): the smallest quotient above 0 that has a code.
#[inline(always)]
fn smallest<const M: u32>() -> f32 {
    power_of_two(LOWEST + 1 - M)
}

/// The code of a quotient in [0, 2], rounded by 16 random bits.
#[inline(always)]
fn code<const M: u32>(quotient: f32, random: u32) -> u32 {
    let bits = quotient.to_bits();
    let normal = (bits.wrapping_add(random << (7 - M)) >> (23 - M)).wrapping_sub(LOWEST << M);
    let steps = quotient / smallest::<M>() + random as f32 * (1.0 / 65536.0);
    let code = if bits < (LOWEST + 1) << 23 { steps as u32 } else { normal };
    code.min((16 << M) - 1)
}

/// The quotient of a code.
#[inline(always)]
fn quotient<const M: u32>(code: u32) -> f32 {
    let normal = f32::from_bits((code + (LOWEST << M)) << (23 - M));
    if code < 1 << M { code as f32 * smallest::<M>() } else { normal }
}

/// The scale of a block: the biased exponent of its largest magnitude.
#[inline(always)]
fn scale(block: &[f32]) -> u32 {
    let largest = block.iter().map(|value| value.to_bits() & 0x7FFF_FFFF).fold(0, u32::max);
    (largest >> 23).min(254)
}

dispatch! {
    /// What the bits of `bf16` stand for.
    pub(super) fn widen_bf16(bits: &[u16], out: &mut [f32]) {
        for (out, &bits) in out.iter_mut().zip(bits) {
            *out = f32::from_bits(u32::from(bits) << 16);
        }
    }

    /// Rounds to `bf16`, by the 16 bits of each word from bit `shift` on.
    pub(super) fn round_bf16(values: &[f32], words: &[u32], shift: u32, out: &mut [u16]) {
        for ((out, value), word) in out.iter_mut().zip(values).zip(words) {
            let rounded = value.to_bits().wrapping_add((word >> shift) & 0xFFFF) >> 16;
            *out = if value.is_nan() { 0x7FC0 } else { rounded as u16 };
        }
    }

    /// Widens values of eight bits.
    pub(super) fn decode(codes: &[u8], scales: &[u8], signed: bool, out: &mut [f32]) {
        let blocks = codes.chunks(SCALED).zip(scales).zip(out.chunks_mut(SCALED));
        for ((codes, &scale), out) in blocks {
            let scale = power_of_two(scale.into());
            for (out, &code) in out.iter_mut().zip(codes) {
                *out = match signed {
                    true => {
                        let value = quotient::<SIGNED>(u32::from(code & 0x7F)) * scale;
                        if code & 0x80 == 0 { value } else { -value }
                    }
                    false => quotient::<UNSIGNED>(code.into()) * scale,
                };
            }
        }
    }

    /// Rounds to eight bits, by the 16 bits of each word from bit `shift` on.
    pub(super) fn encode(
        values: &[f32],
        words: &[u32],
        shift: u32,
        signed: bool,
        codes: &mut [u8],
        scales: &mut [u8],
    ) {
        let blocks = values.chunks(SCALED).zip(words.chunks(SCALED));
        let blocks = blocks.zip(codes.chunks_mut(SCALED)).zip(scales);
        for (((values, words), codes), cell) in blocks {
            let scale = scale(values);
            *cell = scale as u8;
            let inverse = power_of_two(254 - scale);
            for ((code_out, &value), &word) in codes.iter_mut().zip(values).zip(words) {
                let (quotient, random) = (value.abs() * inverse, (word >> shift) & 0xFFFF);
                let sign = (value.to_bits() >> 24) & 0x80;
                *code_out = match signed {
                    true => code::<SIGNED>(quotient, random) | sign,
                    false => code::<UNSIGNED>(quotient, random).max(u32::from(value > 0.0)),
                } as u8;
            }
        }
    }
}
