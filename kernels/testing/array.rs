//! Host arrays: what tests give and get.

use crate::dtype::DType;
use crate::memory::DeviceSlice;

/// A host array.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    /// Floats; stored in the graph as the given dtype.
    Float(Vec<usize>, Vec<f32>, DType),
    /// Integers.
    Int(Vec<usize>, Vec<i32>),
}

impl Array {
    /// Floats that are stored as they are. Panics unless there are as many as the shape says.
    pub fn f32(shape: &[usize], data: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "{shape:?}");
        Self::Float(shape.to_vec(), data, DType::F32)
    }

    /// Integers. Panics unless there are as many as the shape says.
    pub fn i32(shape: &[usize], data: Vec<i32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "{shape:?}");
        Self::Int(shape.to_vec(), data)
    }

    /// Panics if it holds integers.
    pub fn floats(&self) -> &[f32] {
        match self {
            Self::Float(_, data, _) => data,
            Self::Int(..) => panic!("an integer array"),
        }
    }

    /// The integers.
    pub fn ints(&self) -> &[i32] {
        match self {
            Self::Int(_, data) => data,
            Self::Float(..) => panic!("a float array"),
        }
    }

    pub(super) fn elements(&self) -> usize {
        self.shape_and_dtype().0.iter().product()
    }

    /// What storing in bf16 makes of it; a single float is `F32` everywhere.
    pub(crate) fn narrowed(&self) -> Self {
        match self {
            Self::Float(shape, _, DType::F32) if !shape.is_empty() => self.stored_as(DType::Bf16),
            _ => self.clone(),
        }
    }

    /// The values of [`Self::narrowed`], stored as they were.
    pub(crate) fn rounded(&self) -> Self {
        match self.narrowed() {
            Self::Float(shape, data, DType::Bf16) => {
                let nearest = |x: f32| half::bf16::from_f32(x).to_f32();
                Self::f32(&shape, data.into_iter().map(nearest).collect())
            }
            other => other,
        }
    }

    /// Their bits.
    pub(crate) fn words(&self) -> Vec<u32> {
        match self {
            Self::Float(_, data, _) => data.iter().map(|x| x.to_bits()).collect(),
            Self::Int(_, data) => data.iter().map(|x| x.cast_unsigned()).collect(),
        }
    }

    /// The same floats in another dtype; integers stay what they are.
    pub fn stored_as(&self, dtype: DType) -> Self {
        match self {
            Self::Float(shape, data, _) => Self::Float(shape.clone(), data.clone(), dtype),
            Self::Int(..) => self.clone(),
        }
    }

    pub(crate) fn shape_and_dtype(&self) -> (&[usize], DType) {
        match self {
            Self::Float(shape, _, dtype) => (shape, *dtype),
            Self::Int(shape, _) => (shape, DType::I32),
        }
    }
}

/// Pseudo-random values in `-1..1`, the same for the same seed, with a few awkward ones among them.
pub fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..count)
        .map(|i| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let value = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            match i % 97 {
                13 => value * 30.0,
                41 => 0.0,
                67 => value * 1e-20,
                _ => value,
            }
        })
        .collect()
}

pub(super) fn write(target: &mut [u8], array: &Array) {
    let bytes: Vec<u8> = match array {
        Array::Int(_, data) => bytemuck::cast_slice(data).to_vec(),
        Array::Float(_, data, DType::Bf16) => {
            data.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect()
        }
        Array::Float(_, data, DType::F16) => {
            data.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect()
        }
        Array::Float(_, data, _) => bytemuck::cast_slice(data).to_vec(),
    };
    target[..bytes.len()].copy_from_slice(&bytes);
}

pub(super) fn read(slice: DeviceSlice, shape: &[usize], dtype: DType) -> Array {
    // SAFETY: the run is over and its memory is still alive.
    let bytes: &[u8] = unsafe { slice.as_slice() };
    let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    match dtype {
        DType::I32 => Array::i32(shape, collect(bytes)),
        DType::Bf16 => {
            let data = pairs().map(|b| half::bf16::from_le_bytes(b).to_f32()).collect();
            Array::Float(shape.to_vec(), data, dtype)
        }
        DType::F16 => {
            let data = pairs().map(|b| half::f16::from_le_bytes(b).to_f32()).collect();
            Array::Float(shape.to_vec(), data, dtype)
        }
        _ => Array::f32(shape, collect(bytes)),
    }
}

fn collect<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
}
