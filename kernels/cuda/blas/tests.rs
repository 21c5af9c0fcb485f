//! What the library is asked for, by a stand-in that multiplies on the host: every layout, epilogue
//! and dtype gives the product that was meant.

use std::path::Path;
use std::ptr::null_mut;

use super::{Blas, Places};
use crate::cuda::find::{Found, Version};
use crate::cuda::library::Library;
use crate::cuda::testing::shared_library;
use crate::dtype::DType;
use crate::graph::target::BLAS_BYTES;
use crate::launch::{Accumulate, Epilogue, Extent, Factor, Matmul, Memory};
use crate::memory::DeviceSlice;
use crate::ops::activation::Activation;
use crate::testing::noise;

fn library(folder: &Path) -> Option<Blas> {
    let source = folder.join("blas.cpp");
    std::fs::write(&source, include_str!("../stand_in/blas.cpp")).unwrap();
    let path = shared_library("cuda::blas", &[&source], &folder.join("stand-in-blas.so"))?;
    let version = Version { major: 13, minor: 1, patch: 0 };
    let found = Found { library: Library::open(&path).unwrap(), path, version };
    Some(Blas::open(&found).unwrap())
}

/// Elements as they are stored, 16-byte aligned.
struct Stored(Vec<u128>, DType);

impl Stored {
    fn new(values: &[f32], dtype: DType) -> Self {
        let mut words = vec![0u128; (values.len() * dtype.bytes()).div_ceil(16)];
        match dtype {
            DType::F32 => {
                bytemuck::cast_slice_mut(&mut words)[..values.len()].copy_from_slice(values)
            }
            _ => {
                let to: &mut [half::bf16] = bytemuck::cast_slice_mut(&mut words);
                to.iter_mut().zip(values).for_each(|(to, x)| *to = half::bf16::from_f32(*x));
            }
        }
        Self(words, dtype)
    }

    fn values(&self, count: usize) -> Vec<f32> {
        match self.1 {
            DType::F32 => bytemuck::cast_slice(&self.0)[..count].to_vec(),
            _ => bytemuck::cast_slice::<_, half::bf16>(&self.0)[..count]
                .iter()
                .map(|x| x.to_f32())
                .collect(),
        }
    }

    fn place(&mut self) -> DeviceSlice {
        DeviceSlice::from_host(&mut self.0)
    }
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + (0.7978845608028654 * (x + 0.044715 * x * x * x)).tanh())
}

/// A factor with `rows` and `columns` at `[i, j]`, as it lies.
fn at(values: &[f32], transposed: bool, [rows, columns]: [usize; 2], [i, j]: [usize; 2]) -> f64 {
    f64::from(if transposed { values[j * rows + i] } else { values[i * columns + j] })
}

const M: usize = 24;
const N: usize = 40;
const K: usize = 16;

/// Of an epilogue: bias, GELU, and whether its argument is kept.
fn multiplies(
    blas: &Blas,
    dtypes: [DType; 2],
    transposed: [bool; 2],
    epilogue: [bool; 3],
    adds: bool,
) {
    let [dtype, c_dtype] = dtypes;
    let [biased, gated, kept] = epilogue;
    let [mut a, mut b] =
        [Stored::new(&noise(1, M * K), dtype), Stored::new(&noise(2, K * N), dtype)];
    let mut bias = Stored::new(&noise(3, N), dtype);
    let (mut c, mut keeps) =
        (Stored::new(&noise(4, M * N), c_dtype), Stored::new(&vec![f32::NAN; M * N], c_dtype));
    let (left, right, before) = (a.values(M * K), b.values(K * N), c.values(M * N));
    let added = bias.values(N);
    let factor =
        |i, transposed| Factor { memory: Memory::Input(i), dtype, transposed, scale: None };
    let (with_bias, keeps_at) =
        (biased.then_some(Memory::Input(2)), kept.then_some(Memory::Output(1)));
    let product = Matmul {
        m: Extent::from(M),
        n: N,
        k: Extent::from(K),
        a: factor(0, transposed[0]),
        b: factor(1, transposed[1]),
        c: Memory::Output(0),
        c_dtype,
        accumulate: if adds { Accumulate::Always } else { Accumulate::Never },
        epilogue: match (gated, with_bias) {
            (true, bias) => {
                Epilogue::Activation { function: Activation::Gelu, bias, keeps: keeps_at }
            }
            (false, Some(bias)) => Epilogue::Bias(bias),
            (false, None) => Epilogue::None,
        },
    };
    let mut workspace = vec![0u8; BLAS_BYTES];
    let places = Places {
        a: a.place(),
        b: b.place(),
        c: c.place(),
        bias: biased.then(|| bias.place()),
        keeps: kept.then(|| keeps.place()),
        workspace: DeviceSlice::from_host(&mut workspace),
        adds,
    };
    // SAFETY: memory of this test alone, which the stand-in uses in the call.
    assert!(unsafe { blas.multiply(null_mut(), &product, &places) }.unwrap(), "{product}");
    let (results, arguments) = (c.values(M * N), keeps.values(M * N));
    for (i, j) in (0..M).flat_map(|i| (0..N).map(move |j| (i, j))) {
        let term = |l: usize| {
            at(&left, transposed[0], [M, K], [i, l]) * at(&right, transposed[1], [K, N], [l, j])
        };
        let mut sum: f64 = (0..K).map(term).sum();
        sum += if adds { f64::from(before[i * N + j]) } else { 0.0 };
        sum += if biased { f64::from(added[j]) } else { 0.0 };
        let near =
            |got: f32, wanted: f64| (f64::from(got) - wanted).abs() <= 0.01 * wanted.abs() + 1e-3;
        let wanted = if gated { gelu(sum) } else { sum };
        assert!(near(results[i * N + j], wanted), "{product} [{i}, {j}]: {wanted}");
        assert!(!kept || near(arguments[i * N + j], sum), "{product} keeps [{i}, {j}]: {sum}");
    }
}

#[test]
fn what_is_asked_for_is_the_product_that_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let Some(blas) = library(folder.path()) else { return };
    for dtypes in [[DType::Bf16, DType::Bf16], [DType::Bf16, DType::F32]] {
        for transposed in [[false, false], [false, true], [true, false], [true, true]] {
            // Twice: the second time it is known.
            for adds in [false, true, false] {
                multiplies(&blas, dtypes, transposed, [false; 3], adds);
            }
            multiplies(&blas, dtypes, transposed, [true, false, false], false);
        }
    }
    for epilogue in [[true, true, true], [true, true, false], [false, true, true]] {
        multiplies(&blas, [DType::Bf16; 2], [false, true], epilogue, false);
    }
}

#[test]
fn what_it_does_not_offer_is_left_to_our_kernels() {
    let folder = tempfile::tempdir().unwrap();
    let Some(blas) = library(folder.path()) else { return };
    let factor =
        Factor { memory: Memory::Input(0), dtype: DType::Bf16, transposed: false, scale: None };
    let product = Matmul {
        m: Extent::from(3),
        n: 8,
        k: Extent::from(3),
        a: factor,
        b: factor,
        c: Memory::Output(0),
        c_dtype: DType::F32,
        accumulate: Accumulate::Never,
        epilogue: Epilogue::None,
    };
    let mut words = vec![0u128; 64];
    let all = DeviceSlice::from_host(&mut words);
    let aligned =
        Places { a: all, b: all, c: all, bias: None, keeps: None, workspace: all, adds: false };
    let even = Matmul { k: Extent::from(4), ..product.clone() };
    let odd_address = Places { a: all.part(8, 64), ..aligned };
    let live = Extent { capacity: 4, live: Some(Memory::Input(0)) };
    for (product, places) in [
        // Rows of three elements.
        (product, aligned),
        (even.clone(), odd_address),
        (Matmul { m: live, ..even.clone() }, aligned),
        (Matmul { epilogue: silu(), ..even }, aligned),
    ] {
        for _ in 0..2 {
            // SAFETY: nothing is multiplied.
            assert!(!unsafe { blas.multiply(null_mut(), &product, &places) }.unwrap(), "{product}");
        }
    }
}

fn silu() -> Epilogue {
    Epilogue::Activation { function: Activation::Silu, bias: None, keeps: None }
}
