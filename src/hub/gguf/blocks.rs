//! The types of ggml that tensors are stored in: whole numbers in blocks that share a scale.
//!
//! Source: ggml's `ggml-common.h` (layouts) and `ggml-quants.c` (`quantize_row_q8_0_ref`,
//! `quantize_row_q4_0_ref`, of which these are the same numbers; `q4_k` finds its scales in one
//! pass, where ggml searches).

use half::f16;

/// A type of ggml.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgmlType {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// 32 numbers of 8 bits and a scale.
    Q8_0,
    /// 32 numbers of 4 bits and a scale.
    Q4_0,
    /// 256 numbers of 4 bits; eight scales and minima of 6 bits, and a scale of each.
    Q4K,
}

/// Numbers that share a scale.
const BLOCK: usize = 32;
/// Numbers of a block of [`GgmlType::Q4K`].
const SUPER_BLOCK: usize = 256;

impl GgmlType {
    /// Its number in files.
    pub(super) fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
        }
    }

    /// The number of a file whose matrices have it (`general.file_type`).
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q4K => 14,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4K => "q4_k",
        }
    }

    /// Numbers and bytes of a block.
    fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 => (1, 2),
            Self::Q8_0 => (BLOCK, 2 + BLOCK),
            Self::Q4_0 => (BLOCK, 2 + BLOCK / 2),
            Self::Q4K => (SUPER_BLOCK, 2 + 2 + 12 + SUPER_BLOCK / 2),
        }
    }

    /// Numbers of a block.
    pub(super) fn block_elements(self) -> usize {
        self.block().0
    }

    /// Bytes of so many numbers, whole blocks.
    pub(super) fn bytes(self, elements: usize) -> u64 {
        let (numbers, bytes) = self.block();
        (elements / numbers * bytes) as u64
    }

    /// This type, or the nearest one whose blocks divide rows of so many elements.
    pub(super) fn for_rows(self, columns: usize) -> Self {
        let mut fits = [self, Self::Q8_0, Self::F16].into_iter();
        let fits = fits.find(|kind| columns.is_multiple_of(kind.block_elements()));
        fits.expect("every row is whole blocks of one")
    }

    /// Appends values, whole blocks of them.
    pub(super) fn encode(self, values: &[f32], bytes: &mut Vec<u8>) {
        let half = |value: &f32| f16::from_f32(*value).to_le_bytes();
        match self {
            Self::F32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::F16 => bytes.extend(values.iter().flat_map(half)),
            Self::Q8_0 => values.chunks_exact(BLOCK).for_each(|block| q8_0(block, bytes)),
            Self::Q4_0 => values.chunks_exact(BLOCK).for_each(|block| q4_0(block, bytes)),
            Self::Q4K => values.chunks_exact(SUPER_BLOCK).for_each(|block| q4_k(block, bytes)),
        }
    }
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

fn q8_0(block: &[f32], bytes: &mut Vec<u8>) {
    let scale = block.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 127.0;
    let inverse = inverse(scale);
    bytes.extend(f16::from_f32(scale).to_le_bytes());
    bytes.extend(block.iter().map(|x| (x * inverse).round() as i8 as u8));
}

fn q4_0(block: &[f32], bytes: &mut Vec<u8>) {
    let farther = |most: f32, x: &f32| if x.abs() > most.abs() { *x } else { most };
    let scale = block.iter().fold(0.0f32, farther) / -8.0;
    let inverse = inverse(scale);
    bytes.extend(f16::from_f32(scale).to_le_bytes());
    let number = |x: f32| (x * inverse + 8.5).clamp(0.0, 15.0) as u8;
    let (low, high) = block.split_at(BLOCK / 2);
    bytes.extend(low.iter().zip(high).map(|(low, high)| number(*low) | number(*high) << 4));
}

fn q4_k(block: &[f32], bytes: &mut Vec<u8>) {
    // By sub-block: the step between numbers, and how far below zero the first one lies.
    let parts = SUPER_BLOCK / BLOCK;
    let (mut steps, mut depths) = ([0.0f32; 8], [0.0f32; 8]);
    for (part, values) in block.chunks_exact(BLOCK).enumerate() {
        let lowest = values.iter().fold(0.0f32, |least, x| least.min(*x));
        let highest = values.iter().fold(lowest, |most, x| most.max(*x));
        (steps[part], depths[part]) = ((highest - lowest) / 15.0, -lowest);
    }
    let shared = |all: &[f32; 8]| f16::from_f32(all.iter().fold(0.0f32, |a, b| a.max(*b)) / 63.0);
    let (step_unit, depth_unit) = (shared(&steps), shared(&depths));
    let six_bits = |all: &[f32; 8], unit: f16| {
        all.map(|value| (value * inverse(unit.to_f32())).round().clamp(0.0, 63.0) as u8)
    };
    let (steps, depths) = (six_bits(&steps, step_unit), six_bits(&depths, depth_unit));
    bytes.extend(step_unit.to_le_bytes());
    bytes.extend(depth_unit.to_le_bytes());
    // The first four of each, each with two bits of one of the last four; then their other bits.
    bytes.extend((0..4).map(|i| steps[i] | (steps[i + 4] >> 4) << 6));
    bytes.extend((0..4).map(|i| depths[i] | (depths[i + 4] >> 4) << 6));
    bytes.extend((4..8).map(|i| (steps[i] & 15) | (depths[i] & 15) << 4));
    let number = |part: usize, x: f32| {
        let step = step_unit.to_f32() * f32::from(steps[part]);
        let depth = depth_unit.to_f32() * f32::from(depths[part]);
        ((x + depth) * inverse(step)).round().clamp(0.0, 15.0) as u8
    };
    for pair in 0..parts / 2 {
        let at = pair * 2 * BLOCK;
        let (low, high) = block[at..at + 2 * BLOCK].split_at(BLOCK);
        let both = low.iter().zip(high);
        bytes.extend(both.map(|(l, h)| number(2 * pair, *l) | number(2 * pair + 1, *h) << 4));
    }
}
