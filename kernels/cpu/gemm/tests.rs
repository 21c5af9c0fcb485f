//! Bit for bit the sum that the module promises, whatever the shape, strides, threads and ISA.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use super::kernel::{KC, Kernels};
use super::{
    Extent, Floats, Matrix, Output, Scratch, Size, Tiling, gemm, gemm_inline, gemm_trimmed,
    gemm_with, widened,
};
use crate::cpu::isa::{Isa, Level};
use crate::cpu::pool::Pool;
use crate::dtype::Precision;
use crate::random::{RandomStream, Site};

/// How an operand lies in memory.
#[derive(Debug, Clone, Copy)]
enum Layout {
    Rows,
    Columns,
    Strided,
}

/// An operand with gaps between its rows; the gaps hold NaN.
struct Operand {
    data: Vec<f32>,
    strides: [usize; 2],
}

impl Operand {
    fn new(site: &str, rows: usize, columns: usize, layout: Layout) -> Self {
        let strides = match layout {
            Layout::Rows => [columns + 3, 1],
            Layout::Columns => [1, rows + 5],
            Layout::Strided => [2, 2 * rows + 1],
        };
        let length = (rows.max(1) - 1) * strides[0] + (columns.max(1) - 1) * strides[1] + 1;
        let mut data = vec![f32::NAN; length];
        let mut values = vec![0.0; rows * columns];
        RandomStream { seed: 1, site: Site::new(site) }.fill_normal(0, &mut values, 1.0);
        for (at, value) in values.into_iter().enumerate() {
            data[at / columns * strides[0] + at % columns * strides[1]] = value;
        }
        Self { data, strides }
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix::strided(&self.data, self.strides[0], self.strides[1])
    }
}

/// What an element counts as. A bf16 is an F32 whose lower half is empty.
fn counted(x: f32, precision: Precision) -> f32 {
    match precision {
        Precision::F32 => x,
        Precision::Bf16 => {
            let nearest = half::bf16::from_f32(x);
            if nearest.is_normal() || nearest.is_nan() || nearest.is_infinite() {
                nearest.to_f32()
            } else {
                0f32.copysign(x)
            }
        }
    }
}

/// The promised sum, one element at a time.
fn promised(size: Size, a: Matrix<'_>, b: Matrix<'_>, c: &[f32], accumulate: bool) -> Vec<f32> {
    let element = |at: usize| {
        let (i, j) = (at / size.n, at % size.n);
        let mut total = accumulate.then_some(c[at]);
        for start in (0..size.k).step_by(KC) {
            let block = start..size.k.min(start + KC);
            let [x, y] = [a, b].map(|m| move |i, j| counted(m.at(i, j), m.precision));
            let sum = block.fold(0.0, |sum, p| x(i, p).mul_add(y(p, j), sum));
            total = Some(total.map_or(sum, |total| total + sum));
        }
        total.unwrap_or(0.0)
    };
    (0..size.m * size.n).map(element).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn check(pool: &Pool, isa: Isa, size: Size, layouts: [Layout; 2]) {
    let a = Operand::new("a", size.m, size.k, layouts[0]);
    let b = Operand::new("b", size.k, size.n, layouts[1]);
    let old = Operand::new("c", size.m, size.n, Layout::Rows);
    let scratch = Scratch::new(isa, pool.threads()).unwrap();
    for (precision, accumulate) in [
        (Precision::F32, false),
        (Precision::F32, true),
        (Precision::Bf16, false),
        (Precision::Bf16, true),
    ] {
        let [a, b] = [&a, &b].map(|operand| operand.matrix().rounded(precision));
        let old_c: Vec<f32> =
            (0..size.m * size.n).map(|at| old.matrix().at(at / size.n, at % size.n)).collect();
        let want = promised(size, a, b, &old_c, accumulate);
        let (mut c, stride) = (old.data.clone(), old.strides[0]);
        gemm(pool, &scratch, size, a, b, Output::new(&mut c, stride, accumulate));
        for (i, row) in c.chunks(stride).enumerate() {
            let (row, gap) = row.split_at(size.n);
            assert_eq!(
                bits(row),
                bits(&want[i * size.n..(i + 1) * size.n]),
                "{isa} {precision:?} {size:?} {layouts:?} accumulate {accumulate} row {i}"
            );
            assert!(gap.iter().all(|value| value.is_nan()), "wrote between the rows");
        }
    }
}

const LAYOUTS: [Layout; 3] = [Layout::Rows, Layout::Columns, Layout::Strided];

/// Every pair of layouts.
fn all_layouts() -> impl Iterator<Item = [Layout; 2]> {
    LAYOUTS.into_iter().flat_map(|a| LAYOUTS.into_iter().map(move |b| [a, b]))
}

#[test]
fn bits_are_the_promised_sum() {
    let pools = [1, 2, 3].map(Pool::new);
    let sizes = [
        [1, 1, 1],
        [1, 32, 5],
        [2, 3, 4],
        [14, 32, 16],
        [15, 33, 17],
        [28, 48, KC - 1],
        [29, 16, KC],
        [57, 65, KC + 1],
        [13, 31, 2 * KC + 9],
        [64, 64, 32],
        [113, 97, 40],
        [5, 1, 70],
        [1, 7, 2 * KC],
    ];
    for [m, n, k] in sizes {
        for layouts in all_layouts() {
            for isa in Isa::supported() {
                for pool in &pools {
                    check(pool, isa, Size { m, n, k }, layouts);
                }
            }
        }
    }
}

#[test]
fn an_element_is_the_nearest_bf16_and_zero_below_the_normal_range() {
    let least = f32::MIN_POSITIVE;
    // The ties are half way between 1 and its neighbours, once to the even and once from the odd.
    let ties = [0x3F80_8000, 0x3F81_8000, 0x3F80_8001, 0x3F80_7FFF].map(f32::from_bits);
    let edges = [0.0, -0.0, least, -least, least / 2.0, -least / 4.0, f32::MAX, -f32::MAX];
    let odd = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::from_bits(0x7F80_0001)];
    for isa in Isa::supported() {
        let scratch = Scratch::new(isa, 1).unwrap();
        for x in ties.into_iter().chain(edges).chain(odd) {
            let (a, b, mut c) = ([x], [1.0], [0.0]);
            let [a, b] = [&a, &b].map(|x| Matrix::rows(x, 1).rounded(Precision::Bf16));
            let size = Size { m: 1, n: 1, k: 1 };
            gemm_inline(&mut scratch.panels(0), size, a, b, Output::new(&mut c, 1, false));
            let want = counted(x, Precision::Bf16);
            assert!(c[0] == want || c[0].is_nan() && x.is_nan(), "{isa}: {x:e} became {:e}", c[0]);
        }
    }
}

#[test]
fn bits_hold_over_many_tiles() {
    let pools = [1, 2].map(Pool::new);
    for [m, n, k] in [[600, 70, 20], [60, 1100, 33], [192, 384, 128], [130, 260, KC + 2]] {
        for layouts in [[Layout::Rows; 2], [Layout::Columns, Layout::Rows], [Layout::Columns; 2]] {
            for isa in Isa::supported().filter(|isa| isa.level() != Level::Plain) {
                for pool in &pools {
                    check(pool, isa, Size { m, n, k }, layouts);
                }
            }
        }
    }
}

#[test]
fn a_part_of_the_product_has_the_bits_of_the_whole() {
    let size = Size { m: 70, n: 90, k: KC + 50 };
    let (pool, isa) = (Pool::new(2), Isa::detect());
    let scratch = Scratch::new(isa, 2).unwrap();
    let a = Operand::new("a", size.m, size.k, Layout::Rows);
    let b = Operand::new("b", size.k, size.n, Layout::Rows);
    let mut whole = vec![0.0; size.m * size.n];
    gemm(&pool, &scratch, size, a.matrix(), b.matrix(), Output::new(&mut whole, size.n, false));
    for (row, m, column, n) in [(0, 70, 0, 45), (35, 35, 0, 90), (69, 1, 89, 1), (3, 17, 5, 64)] {
        let part_a = Matrix::rows(&a.data[row * a.strides[0]..], a.strides[0]);
        let part_b = Matrix::rows(&b.data[column..], b.strides[0]);
        let mut part = vec![0.0; m * n];
        let (size_part, output) = (Size { m, n, ..size }, Output::new(&mut part, n, false));
        gemm_inline(&mut scratch.panels(0), size_part, part_a, part_b, output);
        for i in 0..m {
            let from = (row + i) * size.n + column;
            assert_eq!(bits(&part[i * n..(i + 1) * n]), bits(&whole[from..from + n]));
        }
    }
}

#[test]
fn products_are_accurate() {
    let size = Size { m: 33, n: 47, k: 2000 };
    let a = Operand::new("a", size.m, size.k, Layout::Rows);
    let b = Operand::new("b", size.k, size.n, Layout::Columns);
    let (pool, scratch) = (Pool::new(1), Scratch::new(Isa::detect(), 1).unwrap());
    let mut c = vec![f32::NAN; size.m * size.n];
    gemm(&pool, &scratch, size, a.matrix(), b.matrix(), Output::new(&mut c, size.n, false));
    for (at, &value) in c.iter().enumerate() {
        let (mut truth, mut magnitude) = (0.0, 0.0);
        for p in 0..size.k {
            let (x, y) = (a.matrix().at(at / size.n, p), b.matrix().at(p, at % size.n));
            truth += f64::from(x) * f64::from(y);
            magnitude += (f64::from(x) * f64::from(y)).abs();
        }
        assert!((f64::from(value) - truth).abs() <= 4.0 * f64::from(f32::EPSILON) * magnitude);
    }
}

#[test]
fn empty_sums_and_empty_products() {
    let pool = Pool::new(2);
    let scratch = Scratch::new(Isa::detect(), 2).unwrap();
    let run = |m, n, k, accumulate| {
        let mut c = [7.0; 6];
        let operand = Matrix::rows(&[], 1);
        let output = Output::new(&mut c, 3, accumulate);
        gemm_with(&pool, &scratch, Size { m, n, k }, operand, operand, output, &|mut block| {
            (0..block.rows()).for_each(|i| block.row(i).iter_mut().for_each(|c| *c += 1.0));
        });
        c
    };
    assert_eq!(run(2, 2, 0, false), [1.0, 1.0, 7.0, 1.0, 1.0, 7.0]);
    assert_eq!(run(2, 2, 0, true), [8.0, 8.0, 7.0, 8.0, 8.0, 7.0]);
    assert_eq!(run(0, 2, 5, false), [7.0; 6]);
    assert_eq!(run(2, 0, 5, false), [7.0; 6]);
}

#[test]
fn the_epilogue_sees_every_element_once_and_finished() {
    let pool = Pool::new(2);
    for isa in Isa::supported().filter(|isa| isa.level() != Level::Plain) {
        let scratch = Scratch::new(isa, 2).unwrap();
        for [m, n, k] in [[1, 1, 1], [130, 530, 20], [61, 33, 2 * KC + 1]] {
            let size = Size { m, n, k };
            let a = Operand::new("a", m, k, Layout::Rows);
            let b = Operand::new("b", k, n, Layout::Rows);
            let mut plain = vec![0.0; m * n];
            let output = Output::new(&mut plain, n, false);
            gemm(&pool, &scratch, size, a.matrix(), b.matrix(), output);
            let seen: Vec<_> = (0..m * n).map(|_| AtomicU32::new(0)).collect();
            let mut fused = vec![0.0; m * n];
            let output = Output::new(&mut fused, n, false);
            gemm_with(&pool, &scratch, size, a.matrix(), b.matrix(), output, &|mut block| {
                for i in 0..block.rows() {
                    let first = (block.first_row + i) * n + block.first_column;
                    for (j, c) in block.row(i).iter_mut().enumerate() {
                        seen[first + j].fetch_add(1, Ordering::Relaxed);
                        *c = 2.0 * *c + j as f32 + (first % n) as f32;
                    }
                }
            });
            assert!(seen.iter().all(|seen| seen.load(Ordering::Relaxed) == 1));
            let wanted: Vec<f32> =
                plain.iter().enumerate().map(|(at, c)| 2.0 * c + (at % n) as f32).collect();
            let close = |(x, y): (&f32, &f32)| (x - y).abs() <= 1e-4 * (1.0 + y.abs());
            assert!(fused.iter().zip(&wanted).all(close));
        }
    }
}

#[test]
fn tiles_cover_c_once_and_suit_the_threads() {
    for isa in Isa::supported() {
        let kernels = Kernels::of(isa, Precision::F32);
        for [m, n, k] in [[1, 1, 1], [192, 384, 128], [1024, 3072, 768], [1, 50_000, 64]] {
            for threads in [1, 2, 16] {
                let tiling = Tiling::choose(Size { m, n, k }, threads, kernels);
                let mut covered = vec![false; m * n];
                for index in 0..tiling.tiles() {
                    let tile = tiling.tile(index);
                    assert!(tile.columns <= kernels.block_columns);
                    for row in tile.row..tile.row + tile.rows {
                        for column in tile.column..tile.column + tile.columns {
                            assert!(!std::mem::replace(&mut covered[row * n + column], true));
                        }
                    }
                }
                assert!(covered.into_iter().all(|covered| covered));
            }
        }
        let tiles = |m, n, k| Tiling::choose(Size { m, n, k }, 2, kernels).tiles();
        assert_eq!(tiles(16, 16, 16), 1);
        assert!(tiles(1024, 3072, 768) >= 8);
        assert_eq!(tiles(192, 384, 128), 2);
        assert_eq!(tiles(768, 128, 512), 4);
    }
}

#[test]
fn scratch_takes_what_it_announces() {
    for isa in Isa::supported() {
        let bytes = Scratch::new(isa, 3).unwrap().bytes();
        assert_eq!(bytes, Scratch::bytes_for(isa, 3));
        assert_eq!(bytes, 3 * Scratch::bytes_for(isa, 1));
    }
}

#[test]
#[should_panic(expected = "held twice")]
fn packing_buffers_have_one_holder() {
    let scratch = Scratch::new(Isa::detect(), 1).unwrap();
    let _first = scratch.panels(0);
    let _second = scratch.panels(0);
}

#[test]
#[should_panic(expected = "A is too short")]
fn a_short_operand_is_refused() {
    let (pool, scratch) = (Pool::new(1), Scratch::new(Isa::detect(), 1).unwrap());
    let (data, mut c) = ([0.0; 8], [0.0; 9]);
    let matrix = Matrix::rows(&data, 3);
    let size = Size { m: 3, n: 2, k: 3 };
    gemm(&pool, &scratch, size, matrix, matrix, Output::new(&mut c, 3, false));
}

#[test]
#[should_panic(expected = "rows of C overlap")]
fn overlapping_rows_are_refused() {
    let (pool, scratch) = (Pool::new(1), Scratch::new(Isa::detect(), 1).unwrap());
    let (data, mut c) = ([0.0; 9], [0.0; 9]);
    let matrix = Matrix::rows(&data, 3);
    let size = Size { m: 3, n: 3, k: 3 };
    gemm(&pool, &scratch, size, matrix, matrix, Output::new(&mut c, 2, false));
}

#[test]
fn a_trimmed_product_has_the_bits_of_the_whole_where_it_is_wanted() {
    let pool = Pool::new(1);
    for [m, n, k] in [[64, 64, 32], [61, 37, 50], [17, 300, 9], [1, 1, 1]] {
        let size = Size { m, n, k };
        let b = Operand::new("b", k, n, Layout::Columns);
        // A lower triangle: row i is zero from its end on.
        let end = |row: usize, of: usize| ((row + 2) * of / m).min(of);
        let mut a = Operand::new("a", m, k, Layout::Rows);
        for row in 0..m {
            let first = row * a.strides[0];
            a.data[first + end(row, k)..first + k].fill(0.0);
        }
        for isa in Isa::supported() {
            let scratch = Scratch::new(isa, 1).unwrap();
            let mut whole = vec![0.0; m * n];
            let output = Output::new(&mut whole, n, false);
            gemm(&pool, &scratch, size, a.matrix(), b.matrix(), output);
            let mut part = vec![f32::NAN; m * n];
            let output = Output::new(&mut part, n, false);
            let trim = |rows: Range<usize>| Extent {
                columns: n - end(m - 1 - rows.start, n)..n,
                depth: 0..end(rows.end - 1, k),
            };
            let mut panels = scratch.panels(0);
            gemm_trimmed(&mut panels, size, a.matrix(), b.matrix(), output, &trim);
            for row in 0..m {
                let wanted = row * n + trim(row..row + 1).columns.start..(row + 1) * n;
                assert_eq!(bits(&part[wanted.clone()]), bits(&whole[wanted]), "{size:?} {isa}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "trimmed")]
fn a_trimmed_product_over_several_blocks_is_refused() {
    let (size, data) = (Size { m: 1, n: 1, k: KC + 1 }, vec![1.0; KC + 1]);
    let scratch = Scratch::new(Isa::detect(), 1).unwrap();
    let (operand, mut c) = (Matrix::rows(&data, KC + 1), [0.0]);
    let all = |_: Range<usize>| Extent { columns: 0..1, depth: 0..KC + 1 };
    let output = Output::new(&mut c, 1, false);
    gemm_trimmed(&mut scratch.panels(0), size, operand, operand, output, &all);
}

#[test]
fn stored_bf16_gives_the_bits_of_its_widened_copy() {
    for isa in Isa::supported() {
        let pool = Pool::new(2);
        let scratch = Scratch::new(isa, 2).unwrap();
        for [m, n, k] in [[1, 1, 1], [3, 40, 33], [70, 129, 400], [33, 300, 7], [130, 64, 770]] {
            let stored = |seed: u64, count: usize| -> Vec<u16> {
                let values = crate::testing::noise(seed, count);
                values.iter().map(|&x| half::bf16::from_f32(x).to_bits()).collect()
            };
            let (a, b) = (stored(1, m * k), stored(2, k * n));
            let wide = |x: &[u16]| -> Vec<f32> { x.iter().map(|&x| widened(x)).collect() };
            let (wide_a, wide_b) = (wide(&a), wide(&b));
            let all = |a: Floats<'_>, b: Floats<'_>| {
                let mut products = Vec::new();
                for a in [a.rows(k), a.transposed(m)] {
                    for b in [b.rows(n), b.transposed(k)] {
                        for precision in [Precision::F32, Precision::Bf16] {
                            let (a, b) = (a.rounded(precision), b.rounded(precision));
                            let mut c = vec![f32::NAN; m * n];
                            let out = Output::new(&mut c, n, false);
                            gemm(&pool, &scratch, Size { m, n, k }, a, b, out);
                            products.extend(c.iter().map(|x| x.to_bits()));
                        }
                    }
                }
                products
            };
            let truth = all(Floats::F32(&wide_a), Floats::F32(&wide_b));
            assert_eq!(all(Floats::Bf16(&a), Floats::Bf16(&b)), truth, "{isa} {m} {n} {k}");
            assert_eq!(all(Floats::F32(&wide_a), Floats::Bf16(&b)), truth, "{isa} {m} {n} {k}");
        }
    }
}
