//! What an op asks of a GPU, as data that is made when a program is compiled.
//!
//! Duty: one list that the driver runs, a stand-in and an emulator run without a card, captures
//! record, profiles time and tuning changes. Prohibition: nothing here is an address or a handle;
//! an op names its own operands, and [`crate::operands`] says where they lie in a run.
//!
//! **Live rows.** Kernels are launched for the capacity and read the extent on the device: what
//! lies beyond is neither read nor written, on a GPU as on the CPU. Libraries take their sizes from
//! the host, so a product with a live size never goes to one ([`Matmul::for_library`]): it runs on
//! our own kernel, which stops at the extent. That holds for rows (`m`) as for a contraction over
//! rows (`k`, a weight's gradient). The other way, zeros written into the dead tail in front of a
//! library call, would have a reader write its input, which other nodes may read at the same time.

use std::ops::Range;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::target::Gpu;
use crate::ops::Io;
use crate::ops::activation::Activation;
use crate::shape::Spec;

mod check;
pub mod print;
#[cfg(test)]
mod tests;

/// Elements of a block of [`Kernel::over_elements`], about: eight or more for each thread.
const BLOCK_ELEMENTS: usize = 4096;

/// Launches in order, and the scratch that they share.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Launches {
    /// In the order in which they run.
    pub list: Vec<Launch>,
    /// Scratch in the arena.
    pub workspace_bytes: usize,
}

/// One thing that a GPU is asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Launch {
    /// A function of our own.
    Kernel(Kernel),
    /// A matrix product.
    Matmul(Matmul),
    /// Zeros in the whole capacity.
    Zero(Memory),
    /// Bytes from one to the other; both have as many.
    Copy {
        /// Read.
        from: Memory,
        /// Written.
        to: Memory,
    },
}

/// What a launch touches, by what it is to the op.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Memory {
    /// An input, by number.
    Input(usize),
    /// An output, by number.
    Output(usize),
    /// Some rows of an operand's leading dimension.
    Rows {
        /// The operand.
        of: Operand,
        /// The first of them.
        first: u32,
        /// How many.
        count: u32,
    },
    /// A part of the scratch.
    Workspace {
        /// Where it begins.
        offset: usize,
        /// How long it is.
        bytes: usize,
    },
}

/// An operand, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operand {
    /// Read.
    Input(usize),
    /// Written.
    Output(usize),
}

/// A function with its grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    /// `kernels/ops/<module>/<module>.cu` holds it.
    pub module: &'static str,
    /// Its name there.
    pub function: String,
    /// Blocks.
    pub grid: Grid,
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// In the order of its parameters.
    pub arguments: Vec<Argument>,
    /// A constant of the node that is its last parameter, by value, if it is not empty.
    pub table: Vec<u64>,
}

/// How many blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grid {
    /// So many, by dimension.
    Fixed([u32; 3]),
    /// One for so many rows of an operand's capacity. Blocks beyond its live extent, which they
    /// are given, return at once.
    Rows {
        /// The operand.
        of: Memory,
        /// Rows of a block.
        each: u32,
    },
}

/// What a parameter of a function is given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Argument {
    /// An address.
    Pointer(Memory),
    /// The address of the `i32` that says how many rows of an operand are live; null if all are.
    Live(Memory),
    /// A null address: what is left out.
    Null,
    /// The address of the `i32` that an extent beyond its capacity sets.
    Overflow,
    /// The address of [`crate::device::RunArguments`]: step and first sample.
    RunArguments,
    /// A constant of the node.
    U32(u32),
    /// Likewise.
    U64(u64),
    /// Likewise.
    F32(f32),
    /// The `u64` key of the node's random stream, low word first.
    Key,
    /// A `u32`: 1 if this run adds to that output, 0 if it overwrites. What differs between the
    /// first micro-batch of a lane and later ones, and nothing else does.
    Accumulate(usize),
    /// The descriptor of a matrix for the tensor memory accelerator, by value.
    TensorMap(TensorMap),
}

/// How boxes of a row-major matrix are copied to shared memory, 128-byte swizzle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorMap {
    /// The matrix's operand.
    pub memory: Memory,
    /// Its elements.
    pub dtype: DType,
    /// Of the operand, where the matrix begins.
    pub offset_bytes: usize,
    /// Elements of a row, and rows.
    pub size: [u64; 2],
    /// From row to row.
    pub stride_bytes: u64,
    /// Elements of a row and rows that are copied together.
    pub tile: [u32; 2],
}

/// Whether a product adds to what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Accumulate {
    /// It overwrites.
    Never,
    /// It adds: a launch of this node before it has written there.
    Always,
    /// As [`Argument::Accumulate`] of that output has it.
    As(usize),
}

/// A size of a product: known, or at most known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// What memory is planned for and grids are launched for.
    pub capacity: usize,
    /// The operand whose live rows it is.
    pub live: Option<Memory>,
}

impl Extent {
    /// The rows of an operand, as far as they are live.
    pub fn rows(io: &Io, of: Memory) -> Self {
        let spec = of.spec(io).expect("rows of an operand");
        Self { capacity: of.leading(io), live: spec.live.map(|_| of) }
    }
}

impl From<usize> for Extent {
    fn from(capacity: usize) -> Self {
        Self { capacity, live: None }
    }
}

/// A row-major factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Factor {
    /// Where it lies.
    pub memory: Memory,
    /// Its elements.
    pub dtype: DType,
    /// It lies there with rows and columns exchanged.
    pub transposed: bool,
    /// One `f32` that its elements are multiplied by: of 8-bit floats.
    pub scale: Option<Memory>,
}

/// `c[m, n] (+)= a[m, k] · b[k, n]`, sums in `F32`.
#[derive(Debug, Clone, PartialEq)]
pub struct Matmul {
    /// Rows of the result.
    pub m: Extent,
    /// Columns of the result.
    pub n: usize,
    /// Terms of a sum.
    pub k: Extent,
    /// The left factor.
    pub a: Factor,
    /// The right factor.
    pub b: Factor,
    /// The result.
    pub c: Memory,
    /// Its elements.
    pub c_dtype: DType,
    /// Decides between beta 0 and 1.
    pub accumulate: Accumulate,
    /// What becomes of sums before they are stored.
    pub epilogue: Epilogue,
}

/// What a product does to its sums before it stores them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Epilogue {
    /// Nothing.
    None,
    /// Adds an element for each column.
    Bias(Memory),
    /// Adds such a bias if there is one and applies a function: to the sums as they are, which a
    /// node of its own would have read rounded. The kept sums are rounded.
    Activation {
        /// Of each element by itself.
        function: Activation,
        /// An element for each column.
        bias: Option<Memory>,
        /// Where the sums before the function are stored too, for backward.
        keeps: Option<Memory>,
    },
}

/// What the choice of a product's algorithm depends on: everything but where operands lie. Prints
/// as the line of a table of choices.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MatmulKey {
    /// m, n, k: capacities.
    pub size: [usize; 3],
    /// Of a, b and c.
    pub dtypes: [DType; 3],
    /// a and b.
    pub transposed: [bool; 2],
    /// Whether it may add to what is there.
    pub accumulates: bool,
    /// Kind of epilogue, without operands.
    pub epilogue: &'static str,
}

impl Memory {
    /// The operand that it is, or is some rows of.
    pub fn operand(self) -> Option<Operand> {
        match self {
            Self::Input(i) => Some(Operand::Input(i)),
            Self::Output(i) => Some(Operand::Output(i)),
            Self::Rows { of, .. } => Some(of),
            Self::Workspace { .. } => None,
        }
    }

    /// Some rows of this whole operand.
    ///
    /// # Panics
    /// If it is none.
    pub fn rows(self, rows: Range<usize>) -> Self {
        let whole = matches!(self, Self::Input(_) | Self::Output(_));
        let of = self.operand().filter(|_| whole).expect("a whole operand");
        Self::Rows { of, first: rows.start as u32, count: rows.len() as u32 }
    }

    /// The first of its rows in its operand.
    pub fn first_row(self) -> usize {
        if let Self::Rows { first, .. } = self { first as usize } else { 0 }
    }

    /// The operand's spec; `None` for scratch, or if there is no such operand.
    pub fn spec(self, io: &Io) -> Option<&Spec> {
        match self.operand()? {
            Operand::Input(i) => io.inputs.get(i),
            Operand::Output(i) => io.outputs.get(i),
        }
    }

    /// How many rows it has; none if it is scratch.
    pub fn leading(self, io: &Io) -> usize {
        match self {
            Self::Rows { count, .. } => count as usize,
            _ => self.spec(io).map_or(0, Spec::leading),
        }
    }

    /// Length of the whole capacity.
    pub fn bytes(self, io: &Io) -> Option<usize> {
        match self {
            Self::Workspace { bytes, .. } => Some(bytes),
            Self::Rows { count, .. } => self.spec(io).map(|spec| count as usize * row_bytes(spec)),
            _ => self.spec(io).map(Spec::bytes),
        }
    }
}

/// Bytes from row to row of the leading dimension.
pub(crate) fn row_bytes(spec: &Spec) -> usize {
    spec.elements_per_row() * spec.dtype.bytes()
}

impl Matmul {
    /// Whether a library can run it: all sizes are known to the host.
    pub fn for_library(&self) -> bool {
        self.m.live.is_none() && self.k.live.is_none()
    }

    /// Everything that it names.
    pub fn touches(&self) -> impl Iterator<Item = Memory> {
        let (bias, keeps) = match self.epilogue {
            Epilogue::None => (None, None),
            Epilogue::Bias(bias) => (Some(bias), None),
            Epilogue::Activation { bias, keeps, .. } => (bias, keeps),
        };
        let scales = [self.a.scale, self.b.scale];
        let fixed = [self.a.memory, self.b.memory, self.c];
        let others = [self.m.live, self.k.live, bias, keeps];
        fixed.into_iter().chain(others.into_iter().chain(scales).flatten())
    }

    /// What its algorithm is chosen by.
    pub fn key(&self) -> MatmulKey {
        MatmulKey {
            size: [self.m.capacity, self.n, self.k.capacity],
            dtypes: [self.a.dtype, self.b.dtype, self.c_dtype],
            transposed: [self.a.transposed, self.b.transposed],
            accumulates: self.accumulate != Accumulate::Never,
            epilogue: self.epilogue.name(),
        }
    }
}

impl Epilogue {
    /// Its kind.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::None => "plain",
            Self::Bias(_) => "bias",
            Self::Activation { function: Activation::Gelu, keeps: None, .. } => "gelu",
            Self::Activation { function: Activation::GeluErf, keeps: None, .. } => "gelu_erf",
            Self::Activation { function: Activation::Silu, keeps: None, .. } => "silu",
            Self::Activation { function: Activation::Gelu, .. } => "gelu, kept",
            Self::Activation { function: Activation::GeluErf, .. } => "gelu_erf, kept",
            Self::Activation { function: Activation::Silu, .. } => "silu, kept",
        }
    }
}

impl Launches {
    /// Launches without scratch.
    pub fn new(list: impl IntoIterator<Item = Launch>) -> Self {
        Self { list: list.into_iter().collect(), workspace_bytes: 0 }
    }

    /// Refuses what could not run: an operand that is not there, a block or scratch beyond its
    /// limits, rows whose extent a kernel is not told, an output that nothing writes.
    ///
    /// # Errors
    /// [`Error::Plan`] with the first mistake.
    pub fn check(&self, op: &str, io: &Io, gpu: &Gpu) -> Result<()> {
        check::check(self, io, gpu)
            .map_err(|what| Error::Plan(format!("launches of {op} on {}: {what}", gpu.name)))
    }
}

impl Kernel {
    /// A kernel of `function` in the folder of `module`, over the rows of an operand.
    pub fn over_rows(module: &'static str, function: String, of: Memory, each: u32) -> Self {
        let grid = Grid::Rows { of, each };
        let (arguments, table) = (Vec::new(), Vec::new());
        Self { module, function, grid, block: 256, shared_bytes: 0, arguments, table }
    }

    /// A kernel of `function` over the elements of an operand, `each` of them in a row: so many
    /// whole rows for each block that it has some thousands, and begins where 16 bytes do.
    pub fn over_elements(module: &'static str, function: String, of: Memory, each: usize) -> Self {
        let rows = (BLOCK_ELEMENTS / each.max(1)).max(1);
        let aligned = each.is_multiple_of(16 / size_of::<u16>());
        let rows = if aligned { rows } else { rows.next_multiple_of(16 / size_of::<u16>()) };
        Self::over_rows(module, function, of, rows as u32)
    }

    /// What a kernel over rows is told of them: the live extent, the capacity, and how many each
    /// block has.
    pub fn rows(&self, io: &Io) -> [Argument; 3] {
        let Grid::Rows { of, each } = self.grid else { panic!("{} has no rows", self.function) };
        [Argument::Live(of), Argument::U32(of.leading(io) as u32), Argument::U32(each)]
    }

    /// The same with these parameters.
    pub fn with(mut self, arguments: impl IntoIterator<Item = Argument>) -> Launch {
        self.arguments.extend(arguments);
        Launch::Kernel(self)
    }

    /// Blocks by dimension, for the capacity.
    pub fn blocks(&self, io: &Io) -> [u32; 3] {
        match self.grid {
            Grid::Fixed(blocks) => blocks,
            Grid::Rows { of, each } => [of.leading(io).div_ceil(each.max(1) as usize) as u32, 1, 1],
        }
    }
}

/// Addresses of inputs `0..inputs` and of outputs `0..outputs`: how most functions begin.
pub fn pointers(inputs: usize, outputs: usize) -> impl Iterator<Item = Argument> {
    let inputs = (0..inputs).map(Memory::Input);
    inputs.chain((0..outputs).map(Memory::Output)).map(Argument::Pointer)
}

/// The dtype of all these float tensors, if it is one that our kernels are compiled for.
pub fn element<'s>(specs: impl IntoIterator<Item = &'s Spec>) -> Option<DType> {
    let mut specs = specs.into_iter();
    let first = specs.next()?.dtype;
    let compiled = matches!(first, DType::F32 | DType::Bf16);
    (compiled && specs.all(|spec| spec.dtype == first)).then_some(first)
}
