//! One tile of C on one thread: blocks of k, packing, strips of rows, panels of columns.
//!
//! Adds the blocks of k in ascending order; chooses nothing.

use std::marker::PhantomData;
use std::ops::Range;

use super::ahead::Ahead;
use super::kernel::{A_STRIDE, KC, Kernels};
use super::narrow::{narrow_a, narrow_b};
use super::pack::{Window, pack_a, pack_b};
use super::{Block, Extent, Finish, Floats, Matrix, Output, Panels, Size, Tiling, Trim};
use crate::dtype::Precision;

/// Tiles with at most this many strips of rows read a row-major B in place.
const STRIPS_UNPACKED: usize = 2;

/// A block of k of a row-major B up to this many elements (with gaps) is read in place too.
const ELEMENTS_UNPACKED: usize = 16 * 1024;

/// Elements of the largest kernel's part of C.
const PART_ELEMENTS: usize = 14 * 32;

/// A checked product.
pub(super) struct Product<'a> {
    k: usize,
    a: Matrix<'a>,
    b: Matrix<'a>,
    c: *mut f32,
    c_stride: usize,
    accumulate: bool,
    finish: &'a Finish<'a>,
    trim: Option<&'a Trim<'a>>,
}

// SAFETY: `c` is written through `tile` alone, whose callers keep tiles apart.
unsafe impl Sync for Product<'_> {}

/// A block of k in a tile: what its strips have in common.
struct Depth<'a> {
    kernels: &'a Kernels,
    tile: Window,
    /// Of k, or pairs of them.
    steps: usize,
    add: bool,
    last: bool,
    b: *const f32,
    b_stride: usize,
    panel_stride: usize,
}

impl<'a> Product<'a> {
    /// None if C is empty.
    pub(super) fn new(
        Size { m, n, k }: Size,
        a: Matrix<'a>,
        b: Matrix<'a>,
        c: Output<'a>,
        finish: &'a Finish<'a>,
    ) -> Option<Self> {
        if m == 0 || n == 0 {
            return None;
        }
        assert_eq!(a.precision, b.precision, "operands of different precision");
        if k > 0 {
            a.check("A", m, k);
            b.check("B", k, n);
        }
        assert!(c.row_stride >= n || m == 1, "the rows of C overlap");
        assert!((m - 1) * c.row_stride + n <= c.data.len(), "C is too short for {m} x {n}");
        let (c, c_stride, accumulate) = (c.data.as_mut_ptr(), c.row_stride, c.accumulate);
        Some(Self { k, a, b, c, c_stride, accumulate, finish, trim: None })
    }

    /// Without what its rows do not need.
    pub(super) fn trimmed(self, trim: &'a Trim<'a>) -> Self {
        Self { trim: Some(trim), ..self }
    }

    /// Computes all of C on the calling thread.
    pub(super) fn inline(&self, size: Size, panels: &mut Panels<'_>) {
        let tiling = Tiling::choose(size, 1, panels.kernels(self.a.precision));
        for tile in 0..tiling.tiles() {
            // SAFETY: tiles are disjoint parts of C, and each runs once.
            unsafe { self.tile(tiling.tile(tile), panels) };
        }
    }

    /// Columns of a tile, and steps of a block of k, that its rows need.
    fn extent(&self, tile: Window, rows: Range<usize>, depth: usize) -> Extent {
        let Some(trim) = self.trim else {
            return Extent { columns: 0..tile.columns, depth: 0..depth };
        };
        let Extent { columns, depth } = trim(rows);
        let inside = |column: usize| column.saturating_sub(tile.column).min(tile.columns);
        Extent { columns: inside(columns.start)..inside(columns.end), depth }
    }

    /// Computes a tile of C.
    ///
    /// # Safety
    /// The tile lies in C, and nobody else touches it meanwhile.
    pub(super) unsafe fn tile(&self, tile: Window, panels: &mut Panels<'_>) {
        if self.k == 0 {
            // SAFETY: the caller's tile.
            return unsafe { self.tile_without_sum(tile) };
        }
        let (isa, kernels) = (panels.isa(), panels.kernels(self.a.precision));
        let narrow = self.a.precision == Precision::Bf16;
        let (packed_a, packed_b) = panels.buffers();
        let (height, group_rows) = self.strips(tile, kernels);
        for start in (0..self.k).step_by(KC) {
            let depth = KC.min(self.k - start);
            let panel = kernels.panel();
            let window =
                Window { row: start, rows: depth, column: tile.column, columns: tile.columns };
            let in_place = self.b_in_place(tile, kernels);
            let (b, b_stride, panel_stride) = if let Some(data) = in_place {
                let first = &data[start * self.b.row_stride + tile.column..];
                (first.as_ptr(), self.b.row_stride, panel)
            } else {
                pack_b(isa, &self.b, window, panel, packed_b);
                if narrow {
                    let packed = tile.columns.next_multiple_of(panel) * depth;
                    narrow_b(isa, kernels, &mut packed_b[..packed], depth);
                }
                (packed_b.as_ptr(), panel, depth * panel)
            };
            let (add, last) = (start > 0 || self.accumulate, start + depth == self.k);
            let steps = kernels.steps(depth);
            let block = Depth { kernels, tile, steps, add, last, b, b_stride, panel_stride };
            for group in (0..tile.rows).step_by(group_rows) {
                let rows = group_rows.min(tile.rows - group);
                let window = Window { row: tile.row + group, rows, column: start, columns: depth };
                pack_a(isa, &self.a, window, packed_a);
                if narrow {
                    narrow_a(isa, kernels, &mut packed_a[..rows * A_STRIDE], depth);
                }
                let calls = rows.div_ceil(height) * tile.columns.div_ceil(panel);
                let next = self.next_group(tile, window, group_rows);
                let mut ahead = Ahead::new(&self.a, next, calls);
                for strip in (0..rows).step_by(height) {
                    let strip_rows = height.min(rows - strip);
                    let packed_a = &packed_a[strip * A_STRIDE..];
                    // SAFETY: the caller's tile; A's strip and B's panels are packed.
                    unsafe {
                        self.strip(&block, group + strip, strip_rows, packed_a, &mut ahead);
                    };
                }
            }
        }
    }

    /// Rows of a strip, and rows that are packed at a time.
    ///
    /// A single strip of a row-major A stays in the first-level cache, and strips of equal height
    /// avoid a low one, which could not keep the multipliers busy. A transposition wants whole
    /// blocks.
    fn strips(&self, tile: Window, kernels: &Kernels) -> (usize, usize) {
        if self.a.column_stride != 1 {
            return (kernels.rows, kernels.group_rows);
        }
        let height = tile.rows.div_ceil(tile.rows.div_ceil(kernels.rows));
        (height, height)
    }

    /// The rows of A that are packed after those of `now`: further down, or in the next block of k.
    fn next_group(&self, tile: Window, now: Window, group_rows: usize) -> Option<Window> {
        let (below, right) = (now.row + now.rows, now.column + now.columns);
        let left = tile.row + tile.rows - below;
        if left > 0 {
            return Some(Window { row: below, rows: group_rows.min(left), ..now });
        }
        let columns = KC.min(self.k - right);
        let rows = group_rows.min(tile.rows);
        (columns > 0).then_some(Window { row: tile.row, rows, column: right, columns })
    }

    /// Few rows or a small B do not repay packing, if B's rows are whole vectors.
    fn b_in_place(&self, tile: Window, kernels: &Kernels) -> Option<&'a [f32]> {
        let Floats::F32(data) = self.b.data else { return None };
        let whole = self.b.precision == Precision::F32;
        let few = tile.rows <= STRIPS_UNPACKED * kernels.rows;
        let small = self.k.min(KC) * self.b.row_stride <= ELEMENTS_UNPACKED;
        let fits = whole
            && (few || small)
            && self.b.column_stride == 1
            && tile.columns.is_multiple_of(kernels.lanes);
        fits.then_some(data)
    }

    /// Adds a block of k to `rows` rows of a tile, from its row `first` on.
    ///
    /// # Safety
    /// The rows lie in the tile, which nobody else touches; `block.b` holds the tile's panels.
    unsafe fn strip(
        &self,
        block: &Depth<'_>,
        first: usize,
        rows: usize,
        a: &[f32],
        ahead: &mut Ahead,
    ) {
        let Depth { kernels, tile, steps, add, .. } = *block;
        let row = tile.row + first;
        let Extent { columns: wanted, depth } = self.extent(tile, row..row + rows, steps);
        assert!(a.len() >= (rows - 1) * A_STRIDE + depth.end && depth.end <= steps);
        // SAFETY: the caller's rows.
        let c = unsafe { self.c.add(row * self.c_stride + tile.column) };
        let mut part = [0.0; PART_ELEMENTS];
        let (a, first_panel) = (&a[depth.start..], wanted.start / kernels.panel());
        for index in first_panel..wanted.end.div_ceil(kernels.panel()) {
            let column = index * kernels.panel();
            let columns = kernels.panel().min(tile.columns - column);
            ahead.fetch();
            let kernel = kernels.get(rows, columns > kernels.lanes);
            // SAFETY: the caller's panels and rows. A kernel writes whole vectors: where columns
            // are missing it writes to `part`, from which those that exist are taken.
            unsafe {
                let b = block.b.add(index * block.panel_stride + depth.start * block.b_stride);
                let (c, depth) = (c.add(column), depth.len());
                if columns.is_multiple_of(kernels.lanes) {
                    kernel(depth, a.as_ptr(), b, block.b_stride, c, self.c_stride, add);
                } else {
                    let (to, stride) = (part.as_mut_ptr(), kernels.panel());
                    kernel(depth, a.as_ptr(), b, block.b_stride, to, stride, false);
                    for (i, sums) in part.chunks(stride).take(rows).enumerate() {
                        let c = std::slice::from_raw_parts_mut(c.add(i * self.c_stride), columns);
                        put(c, &sums[..columns], add);
                    }
                }
            }
        }
        if block.last {
            // SAFETY: the caller's rows, which are finished.
            unsafe { self.finish(tile, first, rows) };
        }
    }

    /// A tile of a product over nothing.
    ///
    /// # Safety
    /// As for [`Self::tile`].
    unsafe fn tile_without_sum(&self, tile: Window) {
        for row in tile.row..tile.row + tile.rows {
            if !self.accumulate {
                let first = row * self.c_stride + tile.column;
                // SAFETY: the caller's tile.
                unsafe { self.c.add(first).write_bytes(0, tile.columns) };
            }
        }
        // SAFETY: the caller's tile.
        unsafe { self.finish(tile, 0, tile.rows) };
    }

    /// Hands rows of a tile to the finish.
    ///
    /// # Safety
    /// The rows lie in the tile, which nobody else touches.
    unsafe fn finish(&self, tile: Window, first: usize, rows: usize) {
        let (first_row, first_column) = (tile.row + first, tile.column);
        (self.finish)(Block {
            first_row,
            first_column,
            rows,
            columns: tile.columns,
            // SAFETY: the caller's rows.
            data: unsafe { self.c.add(first_row * self.c_stride + first_column) },
            row_stride: self.c_stride,
            borrow: PhantomData,
        });
    }
}

/// Writes sums to C, or adds them to it.
fn put(c: &mut [f32], sums: &[f32], add: bool) {
    for (c, &sum) in c.iter_mut().zip(sums) {
        *c = if add { *c + sum } else { sum };
    }
}
