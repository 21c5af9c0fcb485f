//! `adamw` on the CPU, by chunks of elements.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::cpu::CpuDevice;
use crate::cpu::isa::dispatch;
use crate::cpu::pool::Disjoint;
use crate::ops::adamw::{AdamW, Factors};

/// Elements of one chunk.
const CHUNK: usize = 4 * 1024;

/// The flat vectors of a shard, all of one length.
#[derive(Debug)]
pub struct Shard<'a> {
    /// Parameters, or their `f32` masters; updated.
    pub parameters: &'a mut [f32],
    /// Before the clip factor.
    pub gradients: &'a [f32],
    /// First moments; updated.
    pub first_moments: &'a mut [f32],
    /// Second moments; updated.
    pub second_moments: &'a mut [f32],
    /// Position of the shard's first element in the flat vector, for the fingerprint.
    pub first_element: u64,
}

/// Updates a shard and returns the fingerprint of its new parameters.
///
/// Panics if the vectors differ in length or if `step` is 0.
pub fn adamw(device: &CpuDevice, settings: &AdamW, shard: Shard<'_>) -> u64 {
    let Shard { parameters, gradients, first_moments, second_moments, first_element } = shard;
    let length = parameters.len();
    assert!(settings.step > 0, "updates are counted from 1");
    assert!(
        [gradients.len(), first_moments.len(), second_moments.len()] == [length; 3],
        "parameters, gradients and moments differ in length"
    );
    let factors = settings.factors();
    let total = AtomicU64::new(0);
    let (first, second) = (Disjoint::new(first_moments), Disjoint::new(second_moments));
    device.pool.map_chunks(parameters, CHUNK, |chunk, p| {
        let range = chunk * CHUNK..chunk * CHUNK + p.len();
        let g = &gradients[range.clone()];
        // SAFETY: chunks do not overlap, and every chunk runs once.
        let (m, v) = unsafe { (first.range(range.clone()), second.range(range.clone())) };
        update(device.isa, p, g, m, v, factors);
        let sum = fingerprint_of(device.isa, p, first_element + range.start as u64);
        total.fetch_add(sum, Ordering::Relaxed);
    });
    total.into_inner()
}

/// The fingerprint of parameters that begin at `first_element` of the flat vector: the wrapping sum
/// over the elements of a hash of (position, bits). Any cut into parts sums up to the same.
pub fn fingerprint(device: &CpuDevice, parameters: &[f32], first_element: u64) -> u64 {
    let total = AtomicU64::new(0);
    device.pool.for_chunks(parameters.len(), CHUNK, |range| {
        let first = first_element + range.start as u64;
        total.fetch_add(fingerprint_of(device.isa, &parameters[range], first), Ordering::Relaxed);
    });
    total.into_inner()
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
    fn update(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], f: Factors) {
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = g * f.gradient;
            *m = f.beta1.mul_add(*m, f.rest1 * g);
            *v = f.beta2.mul_add(*v, f.rest2 * g * g);
            let denominator = v.sqrt().mul_add(f.second_scale, f.eps);
            *p = (-f.step_size).mul_add(*m / denominator, *p * f.keep);
        }
    }

    fn fingerprint_of(parameters: &[f32], first: u64) -> u64 {
        let mut total = 0u64;
        for (i, p) in parameters.iter().enumerate() {
            total = total.wrapping_add(hash(first.wrapping_add(i as u64), p.to_bits()));
        }
        total
    }
}
