//! Narrow floats widened to `f32` and rounded back, on all threads.

use bytemuck::Pod;
use half::f16;

use crate::cpu::CpuDevice;
use crate::cpu::isa::dispatch;
use crate::cpu::pool::Pool;
use crate::dtype::DType;
use crate::memory::DeviceSlice;

#[cfg(test)]
mod tests;

/// Elements of one chunk.
const CHUNK: usize = 16 * 1024;

/// Widens the elements of `stored`.
///
/// # Safety
/// `stored` is live host memory of as many elements, which nobody writes meanwhile.
pub(crate) unsafe fn widen(
    device: &CpuDevice,
    dtype: DType,
    stored: DeviceSlice,
    wide: &mut [f32],
) {
    let isa = device.isa;
    // SAFETY: the caller vouches for `stored`.
    unsafe {
        match dtype {
            DType::Bf16 => {
                let stored = stored.as_slice::<u16>();
                each(&device.pool, wide, stored, |from, to| widen_bf16(isa, from, to));
            }
            DType::F16 => each(&device.pool, wide, stored.as_slice::<f16>(), |from, to| {
                to.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_f32());
            }),
            _ => unreachable!("{dtype} is not widened"),
        }
    }
}

/// Rounds `wide` to nearest, ties to even.
///
/// # Safety
/// `stored` is live host memory of as many elements, which nobody else uses.
pub(crate) unsafe fn round(device: &CpuDevice, dtype: DType, wide: &[f32], stored: DeviceSlice) {
    let isa = device.isa;
    // SAFETY: the caller vouches for `stored`.
    unsafe {
        match dtype {
            DType::Bf16 => {
                let stored = stored.as_mut_slice::<u16>();
                each(&device.pool, stored, wide, |from, to| round_bf16(isa, from, to));
            }
            DType::F16 => each(&device.pool, stored.as_mut_slice::<f16>(), wide, |from, to| {
                to.iter_mut().zip(from).for_each(|(to, &from)| *to = f16::from_f32(from));
            }),
            _ => unreachable!("{dtype} is not rounded to"),
        }
    }
}

/// Rounds in place: what storing as `dtype` and reading again gives.
pub(crate) fn round_trip(device: &CpuDevice, dtype: DType, data: &mut [f32]) {
    match dtype {
        DType::Bf16 => settle_bf16(device.isa, data),
        DType::F16 => data.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32()),
        _ => {}
    }
}

fn each<A: Pod + Sync, B: Pod + Send>(
    pool: &Pool,
    to: &mut [B],
    from: &[A],
    convert: impl Fn(&[A], &mut [B]) + Sync,
) {
    pool.map_chunks(to, CHUNK, |chunk, to| convert(&from[chunk * CHUNK..][..to.len()], to));
}

/// The bits of the bf16 nearest to `x`, ties to even; a NaN stays one. As the crate `half` rounds,
/// without a branch.
#[inline(always)]
fn nearest(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 0x0040;
    (if x.is_nan() { quiet } else { rounded }) as u16
}

dispatch! {
    fn widen_bf16(from: &[u16], to: &mut [f32]) {
        to.iter_mut().zip(from).for_each(|(to, &from)| *to = f32::from_bits(u32::from(from) << 16));
    }

    fn round_bf16(from: &[f32], to: &mut [u16]) {
        to.iter_mut().zip(from).for_each(|(to, &from)| *to = nearest(from));
    }

    fn settle_bf16(data: &mut [f32]) {
        data.iter_mut().for_each(|x| *x = f32::from_bits(u32::from(nearest(*x)) << 16));
    }
}
