//! What `linear` asks of a GPU: one product each; a bias and GELU in its epilogue. And the kernel
//! of our own that runs a product, whoever asks for it.

use crate::dtype::DType;
use crate::launch::{
    Accumulate, Argument, Epilogue, Extent, Factor, Grid, Kernel, Launch, Launches, Matmul, Memory,
    element,
};
use crate::ops::Io;
use crate::ops::activation::Activation;

/// `y = x wᵀ + b`, and then a function if there is one, whose argument output 1 keeps if `keeps`.
pub(super) fn forward(io: &Io, function: Option<Activation>, keeps: bool) -> Option<Launches> {
    element(io.inputs.iter())?;
    let [n, k] = [io.inputs[1].leading(), io.inputs[1].columns()];
    let bias = (io.inputs.len() > 2).then_some(Memory::Input(2));
    let keeps = keeps.then_some(Memory::Output(1));
    let epilogue = match (function, bias) {
        // The only function that libraries apply as it is defined here.
        (Some(function @ Activation::Gelu), bias) => Epilogue::Activation { function, bias, keeps },
        (Some(_), _) => return None,
        (None, Some(bias)) => Epilogue::Bias(bias),
        (None, None) => Epilogue::None,
    };
    let product = product(io, Extent::rows(io, Memory::Input(0)), n, k.into());
    Some(one(Matmul { b: Factor { transposed: true, ..product.b }, epilogue, ..product }))
}

/// `dx = dy w`.
pub(super) fn input_gradient(io: &Io) -> Option<Launches> {
    element(io.inputs.iter())?;
    let [k, n] = [io.inputs[1].leading(), io.inputs[1].columns()];
    let product = product(io, Extent::rows(io, Memory::Input(0)), n, k.into());
    Some(one(Matmul { accumulate: Accumulate::As(0), ..product }))
}

/// `dw = dyᵀ x`: a contraction over rows, which may be live.
pub(super) fn weight_gradient(io: &Io) -> Option<Launches> {
    element(io.inputs.iter())?;
    let [m, n] = [io.inputs[0].columns(), io.inputs[1].columns()];
    let product = product(io, m.into(), n, Extent::rows(io, Memory::Input(0)));
    let a = Factor { transposed: true, ..product.a };
    Some(one(Matmul { a, accumulate: Accumulate::As(0), ..product }))
}

/// Of the first two inputs into the first output.
fn product(io: &Io, m: Extent, n: usize, k: Extent) -> Matmul {
    let factor = |i: usize| Factor {
        memory: Memory::Input(i),
        dtype: io.inputs[i].dtype,
        transposed: false,
        scale: None,
    };
    Matmul {
        m,
        n,
        k,
        a: factor(0),
        b: factor(1),
        c: Memory::Output(0),
        c_dtype: io.outputs[0].dtype,
        accumulate: Accumulate::Never,
        epilogue: Epilogue::None,
    }
}

fn one(product: Matmul) -> Launches {
    Launches::new([Launch::Matmul(product)])
}

/// Bytes of a block's tiles of both factors, `STAGES` of them, `DEPTH` deep, in product.cuh; later
/// of its sums. A factor lies with its depth in rows or across them.
fn shared_bytes(side: usize, deep_rows: [bool; 2]) -> usize {
    let [stages, depth, padding] = [3, 32, 8];
    let tile = |rows: bool| if rows { depth * (side + padding) } else { side * (depth + padding) };
    let ring = stages * size_of::<u16>() * deep_rows.map(tile).iter().sum::<usize>();
    // A warp has 32 columns, in rows of 36.
    ring.max(side * side / 32 * 36 * size_of::<f32>())
}

/// A block's tile of a product, and what the block needs.
pub(crate) struct Tile {
    /// Rows, and columns.
    pub(crate) side: usize,
    /// How it is called.
    pub(crate) name: String,
    /// Threads.
    pub(crate) block: u32,
    /// Of dynamic shared memory.
    pub(crate) shared_bytes: u32,
}

impl Tile {
    /// For a product of so many rows and columns. Large tiles need fewer bytes for a product, small
    /// ones waste less at edges. `deep_rows`: which factors lie with their depth across rows.
    pub(crate) fn new(dtype: DType, [m, n]: [usize; 2], deep_rows: [bool; 2]) -> Self {
        if dtype == DType::F32 {
            return Self { side: 64, name: "f32".to_string(), block: 128, shared_bytes: 0 };
        }
        let (side, block) = if m >= 128 && n >= 128 { (128, 256) } else { (64, 128) };
        let shared_bytes = shared_bytes(side, deep_rows) as u32;
        Self { side, name: side.to_string(), block, shared_bytes }
    }
}

/// The kernel of our own for a product; `None` for dtypes that it is not compiled for.
pub(crate) fn kernel(product: &Matmul) -> Option<Kernel> {
    let Matmul { m, n, k, a, b, c, c_dtype, accumulate, epilogue } = product;
    let (function, bias, keeps) = match *epilogue {
        Epilogue::None => (0, None, None),
        Epilogue::Bias(bias) => (0, Some(bias), None),
        Epilogue::Activation { function: Activation::Gelu, bias, keeps } => (1, bias, keeps),
        Epilogue::Activation { .. } => return None,
    };
    let layout = [a, b].map(|factor| if factor.transposed { "t" } else { "n" }).concat();
    let tile = Tile::new(a.dtype, [m.capacity, *n], [a.transposed, !b.transposed]);
    let name = &tile.name;
    let function_name = match (a.dtype, b.dtype, c_dtype) {
        (DType::F32, DType::F32, DType::F32) => format!("product_{name}_{layout}"),
        (DType::Bf16, DType::Bf16, DType::F32 | DType::Bf16) => {
            format!("product_{name}_{layout}_{c_dtype}")
        }
        _ => return None,
    };
    let pointer = |memory: Option<Memory>| memory.map_or(Argument::Null, Argument::Pointer);
    let live = |extent: &Extent| extent.live.map_or(Argument::Null, Argument::Live);
    let size = |size: usize| Argument::U32(size as u32);
    // Of m and k at most one is live.
    let first = m.live.or(k.live).map_or(0, Memory::first_row);
    let blocks = [m.capacity, *n].map(|size| size.div_ceil(tile.side).max(1) as u32);
    Some(Kernel {
        module: "linear",
        function: function_name,
        grid: Grid::Fixed([blocks[0], blocks[1], 1]),
        block: tile.block,
        shared_bytes: tile.shared_bytes,
        arguments: vec![
            Argument::Pointer(a.memory),
            Argument::Pointer(b.memory),
            Argument::Pointer(*c),
            pointer(bias),
            pointer(keeps),
            live(m),
            size(m.capacity),
            size(*n),
            live(k),
            size(k.capacity),
            size(first),
            Argument::U32(function),
            match *accumulate {
                Accumulate::Never => Argument::U32(0),
                Accumulate::Always => Argument::U32(1),
                Accumulate::As(output) => Argument::Accumulate(output),
            },
        ],
        table: Vec::new(),
    })
}
