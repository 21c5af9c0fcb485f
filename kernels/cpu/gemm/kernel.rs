//! Microkernels: a few rows of A times a panel of B, summed in registers.
//!
//! Every element's sum is one chain of fma from 0 in ascending k, so all kernels give the same bits
//! whatever their size. Nothing here packs, blocks or checks.
//!
//! Kernels for bf16 take two steps of k at once: an element of A or B is then a pair, the earlier
//! step in the upper half, because that is what the instruction adds first.

use crate::cpu::isa::{Isa, Level};
use crate::dtype::Precision;

/// Depth of a k block. It decides where sums are cut, so it is part of the results: one value for
/// every instruction set.
pub(super) const KC: usize = 384;

/// Distance between the packed rows of A: two elements more than a row holds, so that the elements
/// of one column lie in different banks of the first-level cache.
pub(super) const A_STRIDE: usize = KC + 2;

/// Steps of k that a kernel's loop takes at once.
const UNROLL: usize = 4;

/// Rows of B that an AVX-512 kernel fetches ahead from the second-level cache. AVX2 kernels take
/// longer over a row, and the hardware keeps up.
const AHEAD: usize = 8;

/// Blocks of k from which on a kernel fetches the first line of its rows of C at its beginning:
/// shorter ones are over before it comes.
const LONG: usize = 256;

/// Multiplies `MR` rows of A by `NV` vectors of columns of B over `k <= KC` steps.
///
/// Row `i` of A starts at `a + i * A_STRIDE`, row `p` of B at `b + p * b_stride`, row `i` of C at
/// `c + i * c_stride`. C is overwritten, or added to if `add`.
type Kernel = unsafe fn(
    k: usize,
    a: *const f32,
    b: *const f32,
    b_stride: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
);

/// The kernels of one instruction set.
pub(super) struct Kernels {
    /// Rows of the largest kernel.
    pub(super) rows: usize,
    /// Columns of one vector; panels of B are two wide.
    pub(super) lanes: usize,
    /// Rows of A that a worker packs at a time: whole kernels, and whole blocks of a transposition.
    pub(super) group_rows: usize,
    /// Columns of B that a worker packs at a time: what its second-level cache holds.
    pub(super) block_columns: usize,
    /// Whether elements are pairs of bf16.
    pub(super) pairs: bool,
    narrow: &'static [Kernel],
    wide: &'static [Kernel],
}

impl Kernels {
    /// The kernels for an instruction set. Without instructions for bf16 its products are those of
    /// rounded `F32`; [`super`] says how little differs.
    pub(super) fn of(isa: Isa, precision: Precision) -> &'static Self {
        match (isa.level(), precision) {
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512Bf16, Precision::Bf16) => &AVX512_BF16,
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512 | Level::Avx512Bf16, _) => &AVX512,
            #[cfg(target_arch = "x86_64")]
            (Level::Avx2, _) => &AVX2,
            _ => &PLAIN,
        }
    }

    /// Steps of a block of k that is `depth` deep.
    pub(super) const fn steps(&self, depth: usize) -> usize {
        if self.pairs { depth.div_ceil(2) } else { depth }
    }

    /// Columns of a panel of B.
    pub(super) const fn panel(&self) -> usize {
        2 * self.lanes
    }

    /// The kernel for `rows` rows and two vectors of columns if `wide`, one if not.
    pub(super) fn get(&self, rows: usize, wide: bool) -> Kernel {
        if wide { self.wide[rows - 1] } else { self.narrow[rows - 1] }
    }
}

/// Writes a kernel from a vector's instructions.
macro_rules! kernel {
    (
        $(#[$feature:meta])*
        $name:ident, $lanes:literal,
        $zero:path, $load:path, $store:path, $splat:path, $fma:path, $plus:path, $ahead:path
    ) => {
        $(#[$feature])*
        unsafe fn $name<const MR: usize, const NV: usize>(
            k: usize,
            a: *const f32,
            b: *const f32,
            b_stride: usize,
            c: *mut f32,
            c_stride: usize,
            add: bool,
        ) {
            if k >= LONG {
                for i in 0..MR {
                    prefetch(c.wrapping_add(i * c_stride));
                }
            }
            let mut sums = [[$zero(); NV]; MR];
            let mut step = |p: usize| {
                let mut row = [$zero(); NV];
                for v in 0..NV {
                    $ahead(b.wrapping_add((p + AHEAD) * b_stride + v * $lanes));
                    // SAFETY: the caller has `k` rows of B with `NV` vectors each.
                    row[v] = unsafe { $load(b.add(p * b_stride + v * $lanes)) };
                }
                for i in 0..MR {
                    // SAFETY: the caller has `MR` rows of A with `k` elements each.
                    let x = $splat(unsafe { *a.add(i * A_STRIDE + p) });
                    for v in 0..NV {
                        sums[i][v] = $fma(x, row[v], sums[i][v]);
                    }
                }
            };
            let whole = k - k % UNROLL;
            for first in (0..whole).step_by(UNROLL) {
                (first..first + UNROLL).for_each(&mut step);
            }
            (whole..k).for_each(step);
            for i in 0..MR {
                for v in 0..NV {
                    // SAFETY: the caller has `MR` rows of C with `NV` vectors each.
                    unsafe {
                        let at = c.add(i * c_stride + v * $lanes);
                        $store(at, if add { $plus($load(at), sums[i][v]) } else { sums[i][v] });
                    }
                }
            }
        }
    };
}

/// The kernels of 1, 2, ... rows.
macro_rules! table {
    ($name:ident, $vectors:literal, $($rows:literal)*) => {
        &[$($name::<$rows, $vectors>),*]
    };
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as arch;

#[cfg(target_arch = "x86_64")]
kernel!(
    #[target_feature(enable = "avx512f")]
    avx512,
    16,
    arch::_mm512_setzero_ps,
    arch::_mm512_loadu_ps,
    arch::_mm512_storeu_ps,
    arch::_mm512_set1_ps,
    arch::_mm512_fmadd_ps,
    arch::_mm512_add_ps,
    prefetch
);

#[cfg(target_arch = "x86_64")]
static AVX512: Kernels = Kernels {
    rows: 14,
    lanes: 16,
    group_rows: 56,
    block_columns: 512,
    pairs: false,
    narrow: table!(avx512, 1, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
    wide: table!(avx512, 2, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
};

/// `z + x y` of pairs of bf16: the upper halves first. Subnormal terms and sums are zero.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn add_pairs(x: arch::__m512, y: arch::__m512, z: arch::__m512) -> arch::__m512 {
    // SAFETY: vectors of the same size, of which every pattern of bits is valid.
    let pairs = |x: arch::__m512| unsafe { std::mem::transmute::<arch::__m512, arch::__m512bh>(x) };
    arch::_mm512_dpbf16_ps(z, pairs(x), pairs(y))
}

#[cfg(target_arch = "x86_64")]
kernel!(
    #[target_feature(enable = "avx512f,avx512bf16")]
    avx512_bf16,
    16,
    arch::_mm512_setzero_ps,
    arch::_mm512_loadu_ps,
    arch::_mm512_storeu_ps,
    arch::_mm512_set1_ps,
    add_pairs,
    arch::_mm512_add_ps,
    prefetch
);

#[cfg(target_arch = "x86_64")]
static AVX512_BF16: Kernels = Kernels {
    pairs: true,
    narrow: table!(avx512_bf16, 1, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
    wide: table!(avx512_bf16, 2, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
    ..AVX512
};

#[cfg(target_arch = "x86_64")]
kernel!(
    #[target_feature(enable = "avx2,fma")]
    avx2,
    8,
    arch::_mm256_setzero_ps,
    arch::_mm256_loadu_ps,
    arch::_mm256_storeu_ps,
    arch::_mm256_set1_ps,
    arch::_mm256_fmadd_ps,
    arch::_mm256_add_ps,
    no_prefetch
);

#[cfg(target_arch = "x86_64")]
static AVX2: Kernels = Kernels {
    rows: 6,
    lanes: 8,
    group_rows: 48,
    block_columns: 384,
    pairs: false,
    narrow: table!(avx2, 1, 1 2 3 4 5 6),
    wide: table!(avx2, 2, 1 2 3 4 5 6),
};

/// Has the line with this address fetched.
#[inline(always)]
pub(super) fn prefetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint that touches no memory and accepts every address.
    unsafe {
        arch::_mm_prefetch::<{ arch::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[inline(always)]
fn no_prefetch(_: *const f32) {}

/// A vector without instructions of its own.
mod lanes {
    pub(super) type Vector = [f32; 4];

    pub(super) fn zero() -> Vector {
        [0.0; 4]
    }

    /// # Safety
    /// Four elements can be read.
    pub(super) unsafe fn load(from: *const f32) -> Vector {
        // SAFETY: the caller vouches for it.
        unsafe { from.cast::<Vector>().read_unaligned() }
    }

    /// # Safety
    /// Four elements can be written.
    pub(super) unsafe fn store(to: *mut f32, x: Vector) {
        // SAFETY: the caller vouches for it.
        unsafe { to.cast::<Vector>().write_unaligned(x) }
    }

    pub(super) fn splat(x: f32) -> Vector {
        [x; 4]
    }

    pub(super) fn fma(x: Vector, y: Vector, z: Vector) -> Vector {
        std::array::from_fn(|i| x[i].mul_add(y[i], z[i]))
    }

    pub(super) fn plus(x: Vector, y: Vector) -> Vector {
        std::array::from_fn(|i| x[i] + y[i])
    }
}

kernel!(
    plain,
    4,
    lanes::zero,
    lanes::load,
    lanes::store,
    lanes::splat,
    lanes::fma,
    lanes::plus,
    no_prefetch
);

static PLAIN: Kernels = Kernels {
    rows: 8,
    lanes: 4,
    group_rows: 48,
    block_columns: 384,
    pairs: false,
    narrow: table!(plain, 1, 1 2 3 4 5 6 7 8),
    wide: table!(plain, 2, 1 2 3 4 5 6 7 8),
};
