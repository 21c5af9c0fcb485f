//! Packed operands as bf16: rounded where they stand, or joined to pairs for the instruction that
//! takes two steps of k at once.
//!
//! Both give the same products. A pair has the earlier step in its upper half.

use super::kernel::{A_STRIDE, Kernels};
use crate::cpu::isa::{Isa, dispatch};

/// Elements that are joined at a time.
const WIDTH: usize = 16;

/// What of an `F32`'s bits is a bf16.
const UPPER: u32 = 0xFFFF_0000;

/// Narrows packed rows of A, `depth` steps each.
pub(super) fn narrow_a(isa: Isa, kernels: &Kernels, rows: &mut [f32], depth: usize) {
    for row in rows.chunks_mut(A_STRIDE) {
        if kernels.pairs {
            // The stride has room for the partner of an odd last step.
            row[depth] = 0.0;
            join_neighbours(isa, &mut row[..depth.next_multiple_of(2)]);
        } else {
            round(isa, &mut row[..depth]);
        }
    }
}

/// Narrows packed panels of B, `depth` rows each. Pairs lie in the first half of a panel's place.
pub(super) fn narrow_b(isa: Isa, kernels: &Kernels, panels: &mut [f32], depth: usize) {
    let panel = kernels.panel();
    assert!(!kernels.pairs || panel.is_multiple_of(WIDTH), "panels of {panel} columns");
    for rows in panels.chunks_exact_mut(depth * panel) {
        if kernels.pairs {
            join_rows(isa, rows, panel);
        } else {
            round(isa, rows);
        }
    }
}

/// The bits of the bf16 nearest to `x`, ties to even, with zeros below. Below the normal range it
/// is zero; a NaN stays one.
#[inline(always)]
fn nearest(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) & UPPER;
    let rounded = if x.is_nan() { (bits | 0x0040_0000) & UPPER } else { rounded };
    let subnormal = rounded & 0x7F80_0000 == 0;
    if subnormal { rounded & 0x8000_0000 } else { rounded }
}

#[inline(always)]
fn join(earlier: f32, later: f32) -> f32 {
    f32::from_bits(nearest(earlier) | nearest(later) >> 16)
}

dispatch! {
    fn round(data: &mut [f32]) {
        data.iter_mut().for_each(|x| *x = f32::from_bits(nearest(*x)));
    }

    /// Elements 2p and 2p + 1 become element p.
    fn join_neighbours(row: &mut [f32]) {
        let pairs = row.len() / 2;
        let blocks = pairs / WIDTH;
        for block in 0..blocks {
            let mut old = [0.0; 2 * WIDTH];
            old.copy_from_slice(&row[2 * WIDTH * block..][..2 * WIDTH]);
            let new: [f32; WIDTH] = std::array::from_fn(|p| join(old[2 * p], old[2 * p + 1]));
            row[WIDTH * block..][..WIDTH].copy_from_slice(&new);
        }
        for p in WIDTH * blocks..pairs {
            row[p] = join(row[2 * p], row[2 * p + 1]);
        }
    }

    /// Rows 2p and 2p + 1 become row p; an odd last row meets zeros.
    fn join_rows(rows: &mut [f32], width: usize) {
        let pairs = (rows.len() / width).div_ceil(2);
        for p in 0..pairs {
            for column in (0..width).step_by(WIDTH) {
                let (mut earlier, mut later) = ([0.0; WIDTH], [0.0; WIDTH]);
                earlier.copy_from_slice(&rows[2 * p * width + column..][..WIDTH]);
                let next = (2 * p + 1) * width + column;
                if let Some(row) = rows.get(next..next + WIDTH) {
                    later.copy_from_slice(row);
                }
                let new: [f32; WIDTH] = std::array::from_fn(|j| join(earlier[j], later[j]));
                rows[p * width + column..][..WIDTH].copy_from_slice(&new);
            }
        }
    }
}
