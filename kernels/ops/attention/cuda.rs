//! What `attention` asks of a GPU: the bounds of segments and extents of every few rows, by which
//! tiles that do not meet are skipped, then a block for each tile of queries of a head; backward
//! also one for each tile of keys of a key head.

use crate::dtype::DType;
use crate::launch::{Argument, Grid, Kernel, Launch, Launches, Memory, element, pointers};
use crate::ops::Io;
use crate::ops::attention::Mask;
use crate::ops::attention::geometry::{Geometry, Packing};

/// Rows that bounds are kept of, and their bytes; `BOUND` and `Bounds` of attention.cu.
const BOUND: [usize; 2] = [32, 16];
/// Rows of a block of `attention_deltas`.
const DELTA_ROWS: u32 = 8;
/// Threads of a warp, and its rows of a tile.
const WARP: [usize; 2] = [32, 16];
/// A window that no position leaves.
const NO_WINDOW: u64 = i32::MAX as u64;

/// What attention.cu's kernels of one dtype and width are compiled with.
#[derive(Debug, Clone, Copy)]
struct Tiles {
    dtype: DType,
    /// Elements of a head with its padding.
    width: usize,
    warps: usize,
    /// Keys of a tile in forward.
    keys: usize,
    /// Keys of a tile that queries meet in backward, and queries of one that keys meet.
    back: [usize; 2],
    stages: usize,
}

const TILES: [Tiles; 4] = [
    Tiles { dtype: DType::F32, width: 64, warps: 2, keys: 32, back: [32; 2], stages: 2 },
    Tiles { dtype: DType::F32, width: 128, warps: 2, keys: 32, back: [16; 2], stages: 2 },
    Tiles { dtype: DType::Bf16, width: 64, warps: 4, keys: 64, back: [64; 2], stages: 2 },
    Tiles { dtype: DType::Bf16, width: 128, warps: 4, keys: 64, back: [64, 48], stages: 2 },
];

impl Tiles {
    fn of(dtype: DType, head_dim: usize) -> Option<Self> {
        TILES.into_iter().find(|tiles| tiles.dtype == dtype && head_dim <= tiles.width)
    }

    /// Rows of a block.
    fn rows(&self) -> usize {
        self.warps * WARP[1]
    }

    /// Shared memory for `own` tiles of a block's rows and a ring of pairs of `others` rows, each
    /// with so many bytes that are known of it.
    fn shared_bytes(&self, own: usize, others: usize, known: usize) -> u32 {
        let tile = |rows: usize| rows * (self.width * self.dtype.bytes() + 16);
        let between = WARP[1] * (others + 4) * size_of::<f32>();
        let between = if self.dtype == DType::F32 { self.warps * between } else { 0 };
        (own * tile(self.rows()) + self.stages * (2 * tile(others) + others * known) + between)
            as u32
    }
}

/// The operands of forward, from input `first` on, and where bounds lie.
struct Operands<'a> {
    io: &'a Io,
    geometry: &'a Geometry,
    first: usize,
    q: Memory,
    kv: Memory,
    tiles: Tiles,
}

impl<'a> Operands<'a> {
    fn new(io: &'a Io, geometry: &'a Geometry, first: usize) -> Option<Self> {
        let q = Memory::Input(first);
        let kv = match geometry.packing {
            Packing::Packed => q,
            Packing::Separate { .. } => Memory::Input(first + 1),
        };
        let dtype = element([q.spec(io)?, kv.spec(io)?].into_iter().chain(&io.outputs[..1]))?;
        let tiles = Tiles::of(dtype, geometry.spec.head_dim)?;
        Some(Self { io, geometry, first, q, kv, tiles })
    }

    fn packed(&self) -> bool {
        self.geometry.packing == Packing::Packed
    }

    fn rows(&self, of: Memory) -> usize {
        of.spec(self.io).map_or(0, |spec| spec.leading())
    }

    fn sequences(&self) -> usize {
        self.rows(self.q) / self.geometry.spec.sequence_length
    }

    /// Of queries, of keys.
    fn segments(&self) -> [Argument; 2] {
        let [q, kv] = if self.packed() { [1, 1] } else { [2, 3] };
        [q, kv].map(|i| Argument::Pointer(Memory::Input(self.first + i)))
    }

    fn extents(&self) -> Argument {
        let last = if self.packed() { 2 } else { 4 };
        match self.geometry.spec.mask {
            Mask::Extents => Argument::Pointer(Memory::Input(self.first + last)),
            Mask::Causal | Mask::Bidirectional => Argument::Null,
        }
    }

    /// Of queries, of keys; one for both if they are the same rows.
    fn bounds(&self) -> [Memory; 2] {
        let lengths = [self.geometry.spec.sequence_length, self.geometry.kv_length()];
        let bytes = lengths.map(|length| self.sequences() * length.div_ceil(BOUND[0]) * BOUND[1]);
        let q = Memory::Workspace { offset: 0, bytes: bytes[0] };
        let kv = Memory::Workspace { offset: bytes[0], bytes: bytes[1] };
        [q, if self.packed() { q } else { kv }]
    }

    /// Where scratch goes on behind the bounds.
    fn behind_bounds(&self) -> usize {
        match self.bounds()[1] {
            Memory::Workspace { offset, bytes } => offset + bytes,
            Memory::Input(_) | Memory::Output(_) | Memory::Rows { .. } => 0,
        }
    }

    fn live(&self, of: Memory) -> [Argument; 2] {
        [Argument::Live(of), Argument::U32(self.rows(of) as u32)]
    }

    fn find_bounds(&self) -> impl Iterator<Item = Launch> {
        let lengths = [self.geometry.spec.sequence_length, self.geometry.kv_length()];
        let extents = [self.extents(), Argument::Null];
        let one = |i: usize| {
            let (of, length) = ([self.q, self.kv][i], lengths[i]);
            let tiles = self.sequences() * length.div_ceil(BOUND[0]);
            let mut kernel = Kernel::over_rows("attention", "attention_bounds".to_string(), of, 1);
            let warps = kernel.block as usize / WARP[0];
            kernel.grid = Grid::Fixed([tiles.div_ceil(warps).max(1) as u32, 1, 1]);
            let operands = [self.segments()[i], extents[i], Argument::Pointer(self.bounds()[i])];
            let rest = self.live(of).into_iter().chain([Argument::U32(length as u32)]);
            kernel.with(operands.into_iter().chain(rest))
        };
        let count = if self.packed() { 1 } else { 2 };
        (0..count).map(one).collect::<Vec<_>>().into_iter()
    }

    /// What a kernel over the tiles of `heads` heads of rows of a sequence's `length` is given.
    fn kernel(
        &self,
        function: &str,
        [length, heads]: [usize; 2],
        shared_bytes: u32,
        more: impl IntoIterator<Item = Argument>,
    ) -> Launch {
        let Tiles { dtype, width, warps, .. } = self.tiles;
        let blocks = length.div_ceil(self.tiles.rows()) * self.sequences();
        let function = format!("{function}_{width}_{dtype}");
        let kernel = Kernel {
            grid: Grid::Fixed([blocks.max(1) as u32, heads as u32, 1]),
            block: (warps * WARP[0]) as u32,
            shared_bytes,
            table: self.table(),
            ..Kernel::over_rows("attention", function, self.q, 1)
        };
        let operands = [self.q, self.kv].map(Argument::Pointer).into_iter();
        let operands = operands.chain(self.segments()).chain([self.extents()]);
        let operands = operands.chain(self.bounds().map(Argument::Pointer));
        let operands = operands.chain(self.live(self.q)).chain(self.live(self.kv));
        kernel.with(operands.chain(more))
    }

    /// `Geometry` of attention.cu.
    fn table(&self) -> Vec<u64> {
        let spec = &self.geometry.spec;
        let columns = |of: Memory| of.spec(self.io).map_or(0, |spec| spec.columns());
        let first = if self.packed() { spec.heads * spec.head_dim } else { 0 };
        let sizes = [
            spec.heads,
            spec.kv_heads,
            spec.head_dim,
            spec.sequence_length,
            self.geometry.kv_length(),
            columns(self.q),
            columns(self.kv),
            first,
            first + spec.kv_heads * spec.head_dim,
        ];
        let window = spec.window.map_or(NO_WINDOW, |window| NO_WINDOW.min(window as u64));
        let causal = u64::from(spec.mask == Mask::Causal);
        let scale = u64::from(self.geometry.scale().to_bits());
        sizes.map(|size| size as u64).into_iter().chain([window, causal, scale]).collect()
    }
}

pub(super) fn forward(io: &Io, geometry: &Geometry) -> Option<Launches> {
    let of = Operands::new(io, geometry, 0)?;
    let shared = of.tiles.shared_bytes(1, of.tiles.keys, size_of::<i32>());
    let tiles = [geometry.spec.sequence_length, geometry.spec.heads];
    let list = of.find_bounds().chain([of.kernel("attention", tiles, shared, pointers(0, 2))]);
    Some(Launches { workspace_bytes: of.behind_bounds(), ..Launches::new(list) })
}

/// `dout, out, logsumexp` and the operands of forward `-> dqkv`, or `dq` and `dkv`.
pub(super) fn backward(io: &Io, geometry: &Geometry) -> Option<Launches> {
    element(&io.inputs[..2])?;
    let of = Operands::new(io, geometry, 3)?;
    let spec = &geometry.spec;
    let bytes = io.inputs[2].bytes();
    let delta = Argument::Pointer(Memory::Workspace { offset: of.behind_bounds(), bytes });
    let function = format!("attention_deltas_{}", of.tiles.dtype);
    let deltas = Kernel::over_rows("attention", function, Memory::Input(0), DELTA_ROWS);
    let sizes = [spec.heads, spec.head_dim].map(|size| Argument::U32(size as u32));
    let rest = [delta].into_iter().chain(deltas.rows(io)).chain(sizes);
    let deltas = deltas.with(pointers(2, 0).chain(rest));
    let given = [Argument::Pointer(Memory::Input(0)), Argument::Pointer(Memory::Input(2)), delta];
    let with = |output| given.into_iter().chain([Argument::Pointer(Memory::Output(output))]);
    let back = of.tiles.back;
    let shared = of.tiles.shared_bytes(2, back[0], size_of::<i32>());
    let queries = [spec.sequence_length, spec.heads];
    let queries = of.kernel("attention_queries", queries, shared, with(0));
    // Of a query: logsumexp, delta, and what it sees.
    let shared = of.tiles.shared_bytes(2, back[1], 5 * size_of::<i32>());
    let keys = [geometry.kv_length(), spec.kv_heads];
    let output = io.outputs.len() - 1;
    let keys = of.kernel("attention_keys", keys, shared, with(output));
    let list = of.find_bounds().chain([deltas, queries, keys]);
    Some(Launches { workspace_bytes: of.behind_bounds() + bytes, ..Launches::new(list) })
}
