//! Matrix products in f32: C = A·B or C += A·B.
//!
//! Each element of C is a pure function of its row of A, its column of B and k. The k range is cut
//! at multiples of `KC` = 384; a block's sum is a chain of fma from 0 in ascending k; C is the sum
//! of the blocks in ascending order, after the old C if accumulating: `((c + s0) + s1) + ...`. So
//! the bits do not depend on m, n, the element's place, strides, threads or instruction set (the
//! payload of a NaN may). Tiles of C are therefore free to fit the machine, and k is never split
//! between threads.
//!
//! Operands can be rounded to bf16 on the way ([`Matrix::rounded`]): then the sum is the same chain
//! over the rounded elements. Where the CPU has an instruction that takes two steps of k at once,
//! it does the same; but a term or a sum below the normal range, 2^-126, is zero there and not
//! elsewhere.
//!
//! A tile goes through the k blocks one by one. Per block its columns of B are packed into panels
//! that stay in the second-level cache, then rows of A are packed, and each strip of them meets all
//! panels (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication",
//! 2008, with A and B swapped since C is row-major). No call allocates.

mod ahead;
mod kernel;
mod narrow;
mod pack;
mod scratch;
#[cfg(test)]
mod tests;
mod tile;

use std::marker::PhantomData;
use std::ops::Range;

use crate::cpu::pool::Pool;
use crate::dtype::Precision;
use kernel::{KC, Kernels};
use pack::Window;
pub(crate) use pack::copy;
pub use scratch::{Panels, Scratch};
use tile::Product;

/// Rows of C in the largest tile: how often a packed column of B is used.
const TILE_ROWS: usize = 2048;

/// Multiplications that are worth a tile of their own: some ten microseconds.
const TILE_PRODUCTS: usize = 1 << 19;

/// Rows and columns of C, and the length of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
}

/// Stored floats, of which products are made without a widened copy: they widen while they are
/// packed.
#[derive(Debug, Clone, Copy)]
pub enum Floats<'a> {
    /// As they are.
    F32(&'a [f32]),
    /// The bits of bf16.
    Bf16(&'a [u16]),
}

impl<'a> Floats<'a> {
    /// How many.
    pub fn len(self) -> usize {
        match self {
            Self::F32(data) => data.len(),
            Self::Bf16(data) => data.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Those from number `first` on.
    pub fn from(self, first: usize) -> Self {
        match self {
            Self::F32(data) => Self::F32(&data[first..]),
            Self::Bf16(data) => Self::Bf16(&data[first..]),
        }
    }

    /// A row-major matrix of them whose rows are `row_stride` apart.
    pub fn rows(self, row_stride: usize) -> Matrix<'a> {
        Matrix { data: self, row_stride, column_stride: 1, precision: Precision::F32 }
    }

    /// The transpose of such a matrix.
    pub fn transposed(self, row_stride: usize) -> Matrix<'a> {
        Matrix { data: self, row_stride: 1, column_stride: row_stride, precision: Precision::F32 }
    }

    fn at(self, index: usize) -> f32 {
        match self {
            Self::F32(data) => data[index],
            Self::Bf16(data) => widened(data[index]),
        }
    }
}

/// The value of a bf16.
#[inline(always)]
pub(crate) fn widened(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// An operand: element (i, j) is `data[i * row_stride + j * column_stride]`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    data: Floats<'a>,
    row_stride: usize,
    column_stride: usize,
    precision: Precision,
}

impl<'a> Matrix<'a> {
    /// A matrix with any strides; fast if one of them is 1.
    pub fn strided(data: &'a [f32], row_stride: usize, column_stride: usize) -> Self {
        let data = Floats::F32(data);
        Self { data, row_stride, column_stride, precision: Precision::F32 }
    }

    /// A row-major matrix whose rows are `row_stride` apart.
    pub fn rows(data: &'a [f32], row_stride: usize) -> Self {
        Self::strided(data, row_stride, 1)
    }

    /// The transpose of a row-major matrix whose rows are `row_stride` apart.
    pub fn transposed(data: &'a [f32], row_stride: usize) -> Self {
        Self::strided(data, 1, row_stride)
    }

    /// The matrix of its elements rounded, without a copy. Both operands of a product must be.
    pub fn rounded(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    fn at(&self, row: usize, column: usize) -> f32 {
        self.data.at(row * self.row_stride + column * self.column_stride)
    }

    fn check(&self, name: &str, rows: usize, columns: usize) {
        let last = (rows - 1) * self.row_stride + (columns - 1) * self.column_stride;
        assert!(last < self.data.len(), "{name} is too short for {rows} x {columns}");
    }
}

/// Where the product goes: a row-major matrix.
#[derive(Debug)]
pub struct Output<'a> {
    data: &'a mut [f32],
    row_stride: usize,
    accumulate: bool,
}

impl<'a> Output<'a> {
    /// Rows are `row_stride` apart; their old content is added to if `accumulate`, else ignored.
    pub fn new(data: &'a mut [f32], row_stride: usize, accumulate: bool) -> Self {
        Self { data, row_stride, accumulate }
    }
}

/// A finished part of C, still in the cache: what a finish gets.
pub struct Block<'a> {
    /// Its first row in C.
    pub first_row: usize,
    /// Its first column in C.
    pub first_column: usize,
    rows: usize,
    columns: usize,
    data: *mut f32,
    row_stride: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

impl Block<'_> {
    /// Its number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Row `index` of the block. Panics if there is none.
    pub fn row(&mut self, index: usize) -> &mut [f32] {
        assert!(index < self.rows, "row {index} of {}", self.rows);
        // SAFETY: a block is an exclusive part of C, and the row lies in it.
        unsafe {
            std::slice::from_raw_parts_mut(self.data.add(index * self.row_stride), self.columns)
        }
    }
}

/// Called once for every part of C after its last addition; parts are disjoint and cover C.
///
/// It must treat every element by itself, since the cut into parts is free.
pub type Finish<'a> = dyn Fn(Block<'_>) + Sync + 'a;

/// C = A·B, or C += A·B, on all threads of the pool.
///
/// Panics if an operand is too short, if the rows of C overlap, if the scratch has fewer workers
/// than the pool, or if it or the pool is in use.
pub fn gemm(
    pool: &Pool,
    scratch: &Scratch,
    size: Size,
    a: Matrix<'_>,
    b: Matrix<'_>,
    c: Output<'_>,
) {
    gemm_with(pool, scratch, size, a, b, c, &|_| ());
}

/// [`gemm`] with a finish, such as a bias and an activation.
pub fn gemm_with(
    pool: &Pool,
    scratch: &Scratch,
    size: Size,
    a: Matrix<'_>,
    b: Matrix<'_>,
    c: Output<'_>,
    finish: &Finish<'_>,
) {
    let Some(product) = Product::new(size, a, b, c, finish) else { return };
    let tiling = Tiling::choose(size, pool.threads(), scratch.kernels(a.precision));
    pool.run(tiling.tiles(), &|tile, worker| {
        // SAFETY: tiles are disjoint parts of C, and each runs once.
        unsafe { product.tile(tiling.tile(tile), &mut scratch.panels(worker)) };
    });
}

/// What of a product some rows of C need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Columns of C that are wanted; of the others some may be written.
    pub columns: Range<usize>,
    /// Columns of A outside of which these rows hold nothing but zeros.
    pub depth: Range<usize>,
}

/// The extent of any rows of C: at least that of each of them.
pub type Trim<'a> = dyn Fn(Range<usize>) -> Extent + Sync + 'a;

/// [`gemm_inline`] without what a triangular operand or result makes needless.
///
/// Zeros that are left out change no bit, unless they would meet an infinity or a NaN of B. Panics
/// as [`gemm`], and if the sums are longer than one block of k.
pub fn gemm_trimmed(
    panels: &mut Panels<'_>,
    size: Size,
    a: Matrix<'_>,
    b: Matrix<'_>,
    c: Output<'_>,
    trim: &Trim<'_>,
) {
    assert!(size.k <= KC, "a trimmed product over {} elements", size.k);
    assert_eq!(a.precision, Precision::F32, "a trimmed product of rounded operands");
    let Some(product) = Product::new(size, a, b, c, &|_| ()) else { return };
    product.trimmed(trim).inline(size, panels);
}

/// [`gemm`] on the calling thread, for small products inside a job of the pool.
pub fn gemm_inline(
    panels: &mut Panels<'_>,
    size: Size,
    a: Matrix<'_>,
    b: Matrix<'_>,
    c: Output<'_>,
) {
    let Some(product) = Product::new(size, a, b, c, &|_| ()) else { return };
    product.inline(size, panels);
}

/// How C is cut into tiles. Pure bookkeeping: the results do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tiling {
    size: Size,
    rows: usize,
    columns: usize,
}

impl Tiling {
    /// As many tiles for every thread, of the shape that needs the least packing.
    fn choose(size: Size, threads: usize, kernels: &Kernels) -> Self {
        let (m, n) = (size.m, size.n);
        let (down_min, across_min) = (m.div_ceil(TILE_ROWS), n.div_ceil(kernels.block_columns));
        let (down_max, across_max) = (m.div_ceil(kernels.rows), n.div_ceil(kernels.panel()));
        let worth = m * n * size.k / TILE_PRODUCTS;
        let wanted = match worth / threads {
            _ if threads == 1 || worth < 2 => 1,
            0..16 => threads,
            16..64 => 2 * threads,
            _ => 4 * threads,
        };
        let candidates = (down_min..=down_max.min(down_min.max(wanted))).filter_map(|down| {
            let multiple = if wanted == 1 { 1 } else { threads / common_divisor(threads, down) };
            let across = across_min.max(wanted.div_ceil(down)).next_multiple_of(multiple);
            (across <= across_max).then_some((down, across))
        });
        // Packing costs 1 / rows + 1 / columns for each multiplication.
        let packing = |&(down, across): &(usize, usize)| down * n + across * m;
        let (down, across) = candidates.min_by_key(packing).unwrap_or((down_min, across_min));
        Self {
            size,
            rows: m.div_ceil(down).next_multiple_of(kernels.rows),
            columns: n.div_ceil(across).next_multiple_of(kernels.panel()),
        }
    }

    fn down(&self) -> usize {
        self.size.m.div_ceil(self.rows)
    }

    fn tiles(&self) -> usize {
        self.down() * self.size.n.div_ceil(self.columns)
    }

    /// Tiles below each other come first: they share columns of B.
    fn tile(&self, index: usize) -> Window {
        let (row, column) = (index % self.down() * self.rows, index / self.down() * self.columns);
        let rows = self.rows.min(self.size.m - row);
        Window { row, rows, column, columns: self.columns.min(self.size.n - column) }
    }
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}
