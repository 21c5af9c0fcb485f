//! An update on the CPU, by chunks of elements: narrow state vectors are widened, the rule runs,
//! and they are rounded again. And the fingerprint of what came out.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cpu::isa::{Isa, dispatch};
use crate::cpu::{CpuDevice, moments, philox};
use crate::device::Decision;
use crate::update::{Piece, Rule, SCALED, StepNumbers, Stored, UpdateSlice, VECTORS_MAX, rounding};

#[cfg(test)]
mod tests;

/// Elements of one chunk.
const CHUNK: usize = 4 * 1024;

/// Updates a slice by a rule and returns the fingerprint of its new weights.
///
/// # Safety
/// The slice's vectors are live host memory that nobody else uses, and do not overlap.
pub(crate) unsafe fn update(
    device: &CpuDevice,
    rule: &dyn Rule,
    numbers: &StepNumbers,
    decision: &Decision,
    slice: &UpdateSlice,
) -> u64 {
    let constants = rule.constants(&rule.numbers(numbers), decision.updates);
    let gradient_scale = decision.factor;
    let total = AtomicU64::new(0);
    // SAFETY: the caller vouches for all vectors.
    let (weights, gradients) =
        unsafe { (slice.weights.as_mut_slice::<f32>(), slice.gradient.as_slice::<f32>()) };
    assert_eq!(weights.len(), gradients.len(), "weights and gradients differ in length");
    device.pool.map_chunks(weights, CHUNK, |chunk, weights| {
        let range = chunk * CHUNK..chunk * CHUNK + weights.len();
        let first = slice.first_element + range.start as u64;
        let stored = slice.states.map(|stored| stored.part(&range));
        let gradients = &gradients[range];
        let run = |weights: &mut [f32], states: [&mut [f32]; VECTORS_MAX]| {
            let piece = Piece { weights, gradients, gradient_scale, states };
            rule.run_cpu(device.isa, &constants, piece);
        };
        // SAFETY: the caller vouches for them; chunks do not overlap, and every chunk runs once.
        match unsafe { wide(stored) } {
            Some(states) => run(weights, states),
            None => {
                let mut scratch = [[0.0; CHUNK]; VECTORS_MAX];
                let mut states = scratch.each_mut().map(|vector| &mut vector[..weights.len()]);
                let signed = |i: usize| rule.vectors().get(i).is_some_and(|vector| vector.signed);
                for (i, (stored, vector)) in stored.iter().zip(&mut states).enumerate() {
                    // SAFETY: as above.
                    unsafe { widen(device.isa, stored, signed(i), vector) };
                }
                run(weights, states.each_mut().map(|vector| &mut **vector));
                let mut words = [0; CHUNK];
                let words = &mut words[..weights.len()];
                philox::words(&rounding(slice.seed), device.isa, decision.updates, first, words);
                for (i, (stored, vector)) in stored.iter().zip(&states).enumerate() {
                    // SAFETY: as above.
                    unsafe { narrow(device.isa, stored, signed(i), vector, (words, i)) };
                }
            }
        }
        total.fetch_add(fingerprint(device.isa, weights, first), Ordering::Relaxed);
    });
    total.into_inner()
}

/// The vectors where they lie, if none is narrow.
///
/// # Safety
/// As for [`update`].
unsafe fn wide<'a>(stored: [Stored; VECTORS_MAX]) -> Option<[&'a mut [f32]; VECTORS_MAX]> {
    let one = |stored| -> Option<&'a mut [f32]> {
        match stored {
            Stored::None => Some(&mut []),
            // SAFETY: the caller vouches for it.
            Stored::F32(slice) => Some(unsafe { slice.as_mut_slice() }),
            Stored::Bf16(_) | Stored::Blocks8 { .. } => None,
        }
    };
    let [first, second] = stored.map(one);
    Some([first?, second?])
}

/// # Safety
/// As for [`update`].
unsafe fn widen(isa: Isa, stored: &Stored, signed: bool, vector: &mut [f32]) {
    // SAFETY: the caller vouches for the slices.
    unsafe {
        match *stored {
            Stored::None => {}
            Stored::F32(slice) => vector.copy_from_slice(slice.as_slice()),
            Stored::Bf16(slice) => moments::widen_bf16(isa, slice.as_slice(), vector),
            Stored::Blocks8 { codes, scales } => {
                moments::decode(isa, codes.as_slice(), scales.as_slice(), signed, vector);
            }
        }
    }
}

/// # Safety
/// As for [`update`].
unsafe fn narrow(
    isa: Isa,
    stored: &Stored,
    signed: bool,
    vector: &[f32],
    (words, i): (&[u32], usize),
) {
    let shift = 16 * i as u32;
    // SAFETY: the caller vouches for the slices.
    unsafe {
        match *stored {
            Stored::None => {}
            Stored::F32(slice) => slice.as_mut_slice().copy_from_slice(vector),
            Stored::Bf16(slice) => {
                moments::round_bf16(isa, vector, words, shift, slice.as_mut_slice());
            }
            Stored::Blocks8 { codes, scales } => {
                let (codes, scales) = (codes.as_mut_slice(), scales.as_mut_slice());
                moments::encode(isa, vector, words, shift, signed, codes, scales);
            }
        }
    }
}

impl Stored {
    /// The same vector of these elements alone, which begin at a whole block.
    fn part(self, elements: &Range<usize>) -> Self {
        let (start, length) = (elements.start, elements.len());
        match self {
            Self::None => Self::None,
            Self::F32(slice) => Self::F32(slice.part(start * 4, length * 4)),
            Self::Bf16(slice) => Self::Bf16(slice.part(start * 2, length * 2)),
            Self::Blocks8 { codes, scales } => Self::Blocks8 {
                codes: codes.part(start, length),
                scales: scales.part(start / SCALED, length.div_ceil(SCALED)),
            },
        }
    }
}

/// Two rounds of multiplication and shift on half words, which AVX2 has for whole vectors. Each is
/// a bijection of the bits at a given element, so that a single change cannot go unseen.
#[inline(always)]
fn hash(element: u64, bits: u32) -> u64 {
    let high = ((element >> 32) as u32).wrapping_mul(0x85EB_CA77);
    let x = bits ^ (element as u32).wrapping_mul(0x9E37_79B1) ^ high;
    let x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
    let y = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE3D);
    u64::from(y ^ (y >> 16)) << 32 | u64::from(x ^ (x >> 16))
}

dispatch! {
    /// The fingerprint of weights that begin at element `first` of the flat vectors: the wrapping
    /// sum over the elements of a hash of (position, bits). Any cut into parts sums up to the same.
    fn fingerprint(weights: &[f32], first: u64) -> u64 {
        let mut total = 0u64;
        for (i, weight) in weights.iter().enumerate() {
            total = total.wrapping_add(hash(first.wrapping_add(i as u64), weight.to_bits()));
        }
        total
    }
}
