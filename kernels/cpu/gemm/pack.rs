//! Copies blocks of A and B into the order in which the microkernels read them.
//!
//! Moves values, never changes them; bf16 becomes f32 on the way. Row-major operands are copied,
//! column-major ones transposed in registers, others gathered one by one.

use super::ahead::LINE;
use super::kernel::{A_STRIDE, prefetch};
use super::{Floats, Matrix, widened};
use crate::cpu::isa::{Isa, Level, dispatch};

/// Panels that are written at once. A whole block's panels lie a multiple of 4 KiB apart: the lines
/// of a row meet in one set of the first-level cache, which has eight ways.
const PANELS_AT_ONCE: usize = 4;

/// Rows that are fetched ahead while panels are copied: each is a few lines, too short a piece for
/// the hardware to foresee the next.
const ROWS_AHEAD: usize = 12;

/// Rows and columns of bf16 that are widened before they are transposed: 8 KiB of f32.
const STRIP_ROWS: usize = 8;
const STRIP_COLUMNS: usize = 256;

/// A block of an operand: `rows x columns` from `(row, column)`.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) column: usize,
    pub(super) columns: usize,
}

/// Packs a block of A so that row `i` starts at `i * A_STRIDE` of `to`.
pub(super) fn pack_a(isa: Isa, a: &Matrix<'_>, window: Window, to: &mut [f32]) {
    let Window { row, rows, column, columns } = window;
    if a.column_stride == 1 {
        for (i, to) in to.chunks_mut(A_STRIDE).take(rows).enumerate() {
            let from = (row + i) * a.row_stride + column;
            copy(isa, a.data.from(from), &mut to[..columns]);
        }
    } else if a.row_stride == 1 {
        let from = a.data.from(column * a.column_stride + row);
        transpose(isa, from, a.column_stride, [columns, rows], to, A_STRIDE);
    } else {
        for (i, to) in to.chunks_mut(A_STRIDE).take(rows).enumerate() {
            for (p, to) in to[..columns].iter_mut().enumerate() {
                *to = a.at(row + i, column + p);
            }
        }
    }
}

/// Packs a block of B as panels of `panel` columns, one after the other, each row-major. The last
/// panel is filled up with zeros.
pub(super) fn pack_b(isa: Isa, b: &Matrix<'_>, window: Window, panel: usize, to: &mut [f32]) {
    let Window { row, rows, column, columns } = window;
    let size = rows * panel;
    if !columns.is_multiple_of(panel) {
        to[columns / panel * size..][..size].fill(0.0);
    }
    if b.column_stride == 1 {
        let (size, stride) = ([rows, columns], b.row_stride);
        return match (b.data.from(row * b.row_stride + column), panel) {
            (Floats::F32(from), 32) => copy_panels_32(isa, from, stride, size, to),
            (Floats::F32(from), 16) => copy_panels_16(isa, from, stride, size, to),
            (Floats::F32(from), _) => copy_panels_8(isa, from, stride, size, to),
            (Floats::Bf16(from), 32) => widen_panels_32(isa, from, stride, size, to),
            (Floats::Bf16(from), 16) => widen_panels_16(isa, from, stride, size, to),
            (Floats::Bf16(from), _) => widen_panels_8(isa, from, stride, size, to),
        };
    }
    for (index, to) in to.chunks_mut(size).take(columns.div_ceil(panel)).enumerate() {
        let first = column + index * panel;
        let width = panel.min(column + columns - first);
        if b.row_stride == 1 {
            let from = b.data.from(first * b.column_stride + row);
            transpose(isa, from, b.column_stride, [width, rows], to, panel);
        } else {
            for (p, to) in to.chunks_mut(panel).enumerate() {
                for (j, to) in to[..width].iter_mut().enumerate() {
                    *to = b.at(row + p, first + j);
                }
            }
        }
    }
}

dispatch! {
    fn copy_panels_32(from: &[f32], from_stride: usize, size: [usize; 2], to: &mut [f32]) {
        copy_panels::<32>(from, from_stride, size, to);
    }

    fn copy_panels_16(from: &[f32], from_stride: usize, size: [usize; 2], to: &mut [f32]) {
        copy_panels::<16>(from, from_stride, size, to);
    }

    fn copy_panels_8(from: &[f32], from_stride: usize, size: [usize; 2], to: &mut [f32]) {
        copy_panels::<8>(from, from_stride, size, to);
    }

    fn widen_panels_32(from: &[u16], from_stride: usize, size: [usize; 2], to: &mut [f32]) {
        widen_panels::<32>(from, from_stride, size, to);
    }

    fn widen_panels_16(from: &[u16], from_stride: usize, size: [usize; 2], to: &mut [f32]) {
        widen_panels::<16>(from, from_stride, size, to);
    }

    fn widen_panels_8(from: &[u16], from_stride: usize, size: [usize; 2], to: &mut [f32]) {
        widen_panels::<8>(from, from_stride, size, to);
    }

    fn widen(from: &[u16], to: &mut [f32]) {
        to.iter_mut().zip(from).for_each(|(to, &from)| *to = widened(from));
    }
}

/// The first elements, as many as `to` has.
pub(crate) fn copy(isa: Isa, from: Floats<'_>, to: &mut [f32]) {
    match from {
        Floats::F32(from) => to.copy_from_slice(&from[..to.len()]),
        Floats::Bf16(from) => widen(isa, &from[..to.len()], to),
    }
}

/// [`copy_panels`] of bf16.
#[inline(always)]
fn widen_panels<const N: usize>(
    from: &[u16],
    from_stride: usize,
    [rows, columns]: [usize; 2],
    to: &mut [f32],
) {
    let (to, _) = to.as_chunks_mut::<N>();
    let whole = columns / N;
    for first in (0..whole).step_by(PANELS_AT_ONCE) {
        let width = N * PANELS_AT_ONCE.min(whole - first);
        for p in 0..rows {
            let (parts, _) = from[p * from_stride + first * N..][..width].as_chunks::<N>();
            for (index, part) in parts.iter().enumerate() {
                let to = &mut to[(first + index) * rows + p];
                to.iter_mut().zip(part).for_each(|(to, &from)| *to = widened(from));
            }
        }
    }
    let rest = whole * N..columns;
    if !rest.is_empty() {
        for p in 0..rows {
            let from = &from[p * from_stride..][rest.clone()];
            let to = &mut to[whole * rows + p];
            to.iter_mut().zip(from).for_each(|(to, &from)| *to = widened(from));
        }
    }
}

/// Copies `rows x columns` elements of a row-major matrix into panels of `N` columns.
#[inline(always)]
fn copy_panels<const N: usize>(
    from: &[f32],
    from_stride: usize,
    [rows, columns]: [usize; 2],
    to: &mut [f32],
) {
    let (to, _) = to.as_chunks_mut::<N>();
    let whole = columns / N;
    for first in (0..whole).step_by(PANELS_AT_ONCE) {
        let width = N * PANELS_AT_ONCE.min(whole - first);
        for p in 0..rows {
            let ahead = from.as_ptr().wrapping_add((p + ROWS_AHEAD) * from_stride + first * N);
            (0..width).step_by(LINE).for_each(|line| prefetch(ahead.wrapping_add(line)));
            let (parts, _) = from[p * from_stride + first * N..][..width].as_chunks::<N>();
            for (index, part) in parts.iter().enumerate() {
                to[(first + index) * rows + p] = *part;
            }
        }
    }
    let rest = whole * N..columns;
    if !rest.is_empty() {
        for p in 0..rows {
            let from = &from[p * from_stride..][rest.clone()];
            to[whole * rows + p][..from.len()].copy_from_slice(from);
        }
    }
}

/// `to[j * to_stride + i] = from[i * from_stride + j]` for `i, j` below `[rows, columns]`.
fn transpose(
    isa: Isa,
    from: Floats<'_>,
    from_stride: usize,
    [rows, columns]: [usize; 2],
    to: &mut [f32],
    to_stride: usize,
) {
    let from = match from {
        Floats::F32(from) => {
            return transpose_f32(isa, from, from_stride, [rows, columns], to, to_stride);
        }
        Floats::Bf16(from) => from,
    };
    // A few rows at a time are widened in the nearest cache, and transposed from there.
    let mut wide = [0.0; STRIP_ROWS * STRIP_COLUMNS];
    for i in (0..rows).step_by(STRIP_ROWS) {
        let height = STRIP_ROWS.min(rows - i);
        for j in (0..columns).step_by(STRIP_COLUMNS) {
            let width = STRIP_COLUMNS.min(columns - j);
            for (row, wide) in wide.chunks_mut(STRIP_COLUMNS).take(height).enumerate() {
                widen(isa, &from[(i + row) * from_stride + j..][..width], &mut wide[..width]);
            }
            let to = &mut to[j * to_stride + i..];
            transpose_f32(isa, &wide, STRIP_COLUMNS, [height, width], to, to_stride);
        }
    }
}

/// The same for what needs no widening.
fn transpose_f32(
    isa: Isa,
    from: &[f32],
    from_stride: usize,
    [rows, columns]: [usize; 2],
    to: &mut [f32],
    to_stride: usize,
) {
    assert!(from.len() > (rows - 1) * from_stride + columns - 1);
    assert!(to.len() > (columns - 1) * to_stride + rows - 1);
    let blocks = if isa.level() == Level::Plain { [0, 0] } else { [rows & !7, columns & !7] };
    #[cfg(target_arch = "x86_64")]
    for i in (0..blocks[0]).step_by(8) {
        for j in (0..blocks[1]).step_by(8) {
            let (from, to) = (&from[i * from_stride + j..], &mut to[j * to_stride + i..]);
            // SAFETY: the level has AVX, and the asserts above hold for the whole block.
            unsafe { transpose_block(from.as_ptr(), from_stride, to.as_mut_ptr(), to_stride) };
        }
    }
    for i in 0..rows {
        let done = if i < blocks[0] { blocks[1] } else { 0 };
        for j in done..columns {
            to[j * to_stride + i] = from[i * from_stride + j];
        }
    }
}

/// Transposes 8 x 8 elements.
///
/// # Safety
/// Eight rows of eight elements can be read and written at the given strides.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn transpose_block(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    use std::arch::x86_64::{
        __m256, _mm_loadu_ps, _mm256_castps128_ps256, _mm256_insertf128_ps, _mm256_shuffle_ps,
        _mm256_storeu_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
    };
    for half in 0..2 {
        // Four elements of row i, and beside them four of row i + 4.
        let load = |i: usize| -> __m256 {
            // SAFETY: inside the block.
            let (low, high) = unsafe {
                let at = from.add(i * from_stride + 4 * half);
                (_mm_loadu_ps(at), _mm_loadu_ps(at.add(4 * from_stride)))
            };
            _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(low), high)
        };
        let rows = [load(0), load(1), load(2), load(3)];
        let low = [_mm256_unpacklo_ps(rows[0], rows[1]), _mm256_unpacklo_ps(rows[2], rows[3])];
        let high = [_mm256_unpackhi_ps(rows[0], rows[1]), _mm256_unpackhi_ps(rows[2], rows[3])];
        let columns = [
            _mm256_shuffle_ps::<0x44>(low[0], low[1]),
            _mm256_shuffle_ps::<0xEE>(low[0], low[1]),
            _mm256_shuffle_ps::<0x44>(high[0], high[1]),
            _mm256_shuffle_ps::<0xEE>(high[0], high[1]),
        ];
        for (j, column) in columns.into_iter().enumerate() {
            // SAFETY: inside the block.
            unsafe { _mm256_storeu_ps(to.add((4 * half + j) * to_stride), column) };
        }
    }
}
