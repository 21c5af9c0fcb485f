//! What ops over rows share on the CPU: fixed cuts of rows, and sums in a fixed order.
//!
//! Nothing here depends on the number of threads or on the instruction set.

use std::ops::Range;

use crate::cpu::pool::{Disjoint, Pool};

#[cfg(test)]
mod tests;

/// Elements that one chunk of [`map_rows`] handles.
const CHUNK_ELEMENTS: usize = 16 * 1024;

/// Columns that one chunk of [`column_sums`] handles.
const STRIP: usize = 64;

/// Rows whose terms are summed in `f32` before they join an `f64` total.
const BLOCK_ROWS: usize = 64;

/// Lanes of [`sums`].
pub(crate) const LANES: usize = 32;

/// Cuts `rows` into fixed chunks and gives each chunk its rows of every output.
///
/// An output is a slice and its elements per row; `row_elements` is what one row costs.
pub(crate) fn map_rows<T: Send, const K: usize>(
    pool: &Pool,
    rows: usize,
    row_elements: usize,
    outputs: [(&mut [T], usize); K],
    work: impl Fn(Range<usize>, [&mut [T]; K]) + Sync,
) {
    let outputs = outputs.map(|(data, columns)| (Disjoint::new(data), columns));
    pool.for_chunks(rows, (CHUNK_ELEMENTS / row_elements.max(1)).max(1), |range| {
        let parts = std::array::from_fn(|i| {
            let (data, columns) = &outputs[i];
            // SAFETY: chunks of rows do not overlap, and every chunk runs once.
            unsafe { data.range(range.start * columns..range.end * columns) }
        });
        work(range, parts);
    });
}

/// Column sums over rows in a fixed order: `f32` inside blocks of 64 rows, `f64` over the blocks.
///
/// `add(rows, columns, partial)` adds the terms of a block to `partial`, one element per column.
pub(crate) fn column_sums(
    pool: &Pool,
    rows: usize,
    out: &mut [f32],
    accumulate: bool,
    add: impl Fn(Range<usize>, Range<usize>, &mut [f32]) + Sync,
) {
    pool.map_chunks(out, STRIP, |index, out| {
        let columns = index * STRIP..index * STRIP + out.len();
        let mut totals = [0.0f64; STRIP];
        for start in (0..rows).step_by(BLOCK_ROWS) {
            let mut partial = [0.0f32; STRIP];
            let block = start..rows.min(start + BLOCK_ROWS);
            add(block, columns.clone(), &mut partial[..out.len()]);
            totals.iter_mut().zip(partial).for_each(|(t, p)| *t += f64::from(p));
        }
        for (o, total) in out.iter_mut().zip(totals) {
            *o = if accumulate { *o + total as f32 } else { total as f32 };
        }
    });
}

/// `K` sums of terms over three slices of one length: element i goes to lane i mod 32, the lanes
/// are joined in a fixed tree.
///
/// Loops over whole lane arrays, one sum at a time: the compiler turns those into vectors.
#[inline(always)]
pub(crate) fn sums<const K: usize>(
    x: &[f32],
    y: &[f32],
    z: &[f32],
    term: impl Fn(f32, f32, f32) -> [f32; K],
) -> [f32; K] {
    assert!(x.len() == y.len() && y.len() == z.len(), "sums over slices of different lengths");
    let mut lanes = [[0.0f32; LANES]; K];
    let (x_blocks, x_tail) = x.as_chunks::<LANES>();
    let (y_blocks, y_tail) = y.as_chunks::<LANES>();
    let (z_blocks, z_tail) = z.as_chunks::<LANES>();
    for ((x, y), z) in x_blocks.iter().zip(y_blocks).zip(z_blocks) {
        for (k, lanes) in lanes.iter_mut().enumerate() {
            for (((lane, x), y), z) in lanes.iter_mut().zip(x).zip(y).zip(z) {
                *lane += term(*x, *y, *z)[k];
            }
        }
    }
    for (k, lanes) in lanes.iter_mut().enumerate() {
        for (((lane, x), y), z) in lanes.iter_mut().zip(x_tail).zip(y_tail).zip(z_tail) {
            *lane += term(*x, *y, *z)[k];
        }
    }
    lanes.map(join)
}

/// Adds up lanes in a fixed tree.
#[inline(always)]
pub(crate) fn join(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}
