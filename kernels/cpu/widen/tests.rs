//! Rounding is that of the crate `half`, on every instruction set and number of threads.

use half::{bf16, f16};

use crate::cpu::CpuDevice;
use crate::cpu::isa::Isa;
use crate::cpu::widen::{round, round_trip, widen};
use crate::dtype::DType;
use crate::memory::DeviceSlice;

#[test]
fn bits_are_those_of_half() {
    let mut wide: Vec<f32> = (0..=u32::MAX).step_by(65_521).map(f32::from_bits).collect();
    wide.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0 + f32::EPSILON]);
    // Ties, up and down.
    wide.extend((0..64u32).map(|i| f32::from_bits(0x3F80_8000 + (i << 16))));
    for isa in Isa::supported() {
        for threads in [1, 3] {
            let device = CpuDevice::with_isa(threads, isa);
            for dtype in [DType::Bf16, DType::F16] {
                let truth = |x: f32| match dtype {
                    DType::Bf16 => (bf16::from_f32(x).to_bits(), bf16::from_f32(x).to_f32()),
                    _ => (f16::from_f32(x).to_bits(), f16::from_f32(x).to_f32()),
                };
                let mut stored = vec![0u16; wide.len()];
                let mut back = vec![0.0; wide.len()];
                let slice = DeviceSlice::from_host(&mut stored);
                // SAFETY: the memory is ours.
                unsafe { round(&device, dtype, &wide, slice) };
                // SAFETY: likewise.
                unsafe { widen(&device, dtype, slice, &mut back) };
                let mut settled = wide.clone();
                round_trip(&device, dtype, &mut settled);
                for (i, &x) in wide.iter().enumerate() {
                    let (bits, value) = truth(x);
                    assert_eq!(stored[i], bits, "{x} as {dtype}");
                    assert_eq!(back[i].to_bits(), value.to_bits(), "{x} as {dtype}");
                    assert_eq!(settled[i].to_bits(), value.to_bits(), "{x} as {dtype}");
                }
            }
        }
    }
}
