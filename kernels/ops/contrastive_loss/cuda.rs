//! What `contrastive_loss` asks of a GPU, chunk by chunk of rows: a product, a kernel over its
//! rows, and the products that gradients are. Products of a and b are `f32`; their gradients are
//! stored as a and b are. Groups are whole: a live extent has no form here.

use std::ops::Range;

use crate::dtype::DType;
use crate::launch::{
    Accumulate, Argument, Epilogue, Factor, Grid, Kernel, Launch, Launches, Matmul, Memory, element,
};
use crate::ops::Io;

/// Rows of a chunk: of a large group enough tiles of products for all multiprocessors.
const CHUNK: usize = 512;
/// Rows of a block: one for each warp.
const ROWS: usize = 8;
/// Scratch begins where 16 bytes do.
const ALIGNMENT: usize = 256;

/// The operands, and the scratch so far.
struct Pairs {
    dtype: DType,
    group: usize,
    columns: usize,
    workspace_bytes: usize,
}

impl Pairs {
    fn new(io: &Io) -> Option<Self> {
        let scalars = io.inputs[2..4].iter().all(|spec| spec.dtype == DType::F32);
        let whole = io.inputs[..2].iter().all(|spec| spec.live.is_none());
        let [group, columns] = [io.inputs[0].leading(), io.inputs[0].columns()];
        let dtype = element(&io.inputs[..2]).filter(|_| scalars && whole && group > 0)?;
        Some(Self { dtype, group, columns, workspace_bytes: 0 })
    }

    fn scratch(&mut self, elements: usize, bytes: usize) -> Memory {
        let bytes = elements * bytes;
        let memory = Memory::Workspace { offset: self.workspace_bytes, bytes };
        self.workspace_bytes += bytes.next_multiple_of(ALIGNMENT);
        memory
    }

    /// Scratch for a chunk of products.
    fn products(&mut self, dtype: DType) -> Memory {
        self.scratch(CHUNK.min(self.group) * self.group, dtype.bytes())
    }

    fn chunks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let group = self.group;
        (0..group).step_by(CHUNK).map(move |start| start..group.min(start + CHUNK))
    }

    fn factor(&self, memory: Memory, transposed: bool) -> Factor {
        Factor { memory, dtype: self.dtype, transposed, scale: None }
    }

    fn product(&self, [m, n, k]: [usize; 3], factors: [Factor; 2], c: (Memory, DType)) -> Matmul {
        let ([a, b], (c, c_dtype)) = (factors, c);
        let (accumulate, epilogue) = (Accumulate::Never, Epilogue::None);
        Matmul { m: m.into(), n, k: k.into(), a, b, c, c_dtype, accumulate, epilogue }
    }

    /// Some rows of one side times all of the other.
    fn of_rows(&self, from: usize, rows: &Range<usize>, products: Memory) -> Launch {
        let rows_of = self.factor(Memory::Input(from).rows(rows.clone()), false);
        let factors = [rows_of, self.factor(Memory::Input(1 - from), true)];
        let size = [rows.len(), self.group, self.columns];
        Launch::Matmul(self.product(size, factors, (products, DType::F32)))
    }

    /// A kernel with a warp for each row of a chunk.
    fn over(&self, function: &str, rows: &Range<usize>, own: &[Argument]) -> Launch {
        let blocks = rows.len().div_ceil(ROWS);
        let sizes = [rows.start, rows.len(), self.group].map(|size| Argument::U32(size as u32));
        kernel(function, blocks).with(own.iter().copied().chain(sizes))
    }
}

fn kernel(function: &str, blocks: usize) -> Kernel {
    let rows = Kernel::over_rows("contrastive_loss", function.to_string(), Memory::Input(0), 1);
    Kernel { grid: Grid::Fixed([blocks as u32, 1, 1]), ..rows }
}

pub(super) fn forward(io: &Io) -> Option<Launches> {
    let mut pairs = Pairs::new(io)?;
    let group = pairs.group;
    let products = pairs.products(DType::F32);
    let terms = pairs.scratch(2 * group, size_of::<f64>());
    let mut list = Vec::new();
    for side in 0..2 {
        // Its own rows of `parts` and its own half of the terms.
        let part = |i: usize| Memory::Output(2).rows(2 * side + i..2 * side + i + 1);
        let Memory::Workspace { offset, bytes } = terms else { return None };
        let (offset, bytes) = (offset + side * bytes / 2, bytes / 2);
        let half = Memory::Workspace { offset, bytes };
        for rows in pairs.chunks() {
            list.push(pairs.of_rows(side, &rows, products));
            let own = [products, Memory::Input(2), part(0), part(1), half].map(Argument::Pointer);
            list.push(pairs.over("contrastive_rows", &rows, &own));
        }
    }
    let [scale, loss, sum] =
        [Memory::Input(3), Memory::Output(0), Memory::Output(1)].map(Argument::Pointer);
    let (terms, none) = (Argument::Pointer(terms), Argument::Null);
    let size = Argument::U32(2 * group as u32);
    let total = [terms, none, scale, loss, sum, none, none, size];
    list.push(kernel("contrastive_loss_total", 1).with(total));
    Some(Launches { workspace_bytes: pairs.workspace_bytes, ..Launches::new(list) })
}

/// `a, b, log_scale, scale, dloss, parts -> da, db, dlog_scale`, those that are wanted.
pub(super) fn gradient(io: &Io, wanted: &[bool; 3]) -> Option<Launches> {
    let mut pairs = Pairs::new(io)?;
    let (group, dtype) = (pairs.group, pairs.dtype);
    let products = pairs.products(DType::F32);
    let made = if dtype == DType::F32 { products } else { pairs.products(dtype) };
    let terms = pairs.scratch(group, size_of::<f64>());
    let mut outputs = (0..).map(Memory::Output);
    let [da, db, dlog_scale] = wanted.map(|wanted| wanted.then(|| outputs.next()).flatten());
    // Chunks add to db: in `f32`, which is rounded once.
    let narrow = dtype != DType::F32 && pairs.chunks().count() > 1;
    let sums = db.map(|db| match narrow {
        true => (pairs.scratch(group * pairs.columns, size_of::<f32>()), DType::F32),
        false => (db, dtype),
    });
    let mut list = Vec::new();
    for rows in pairs.chunks() {
        list.push(pairs.of_rows(0, &rows, products));
        let own = [products, Memory::Input(5), made, terms].map(Argument::Pointer);
        let own = own.into_iter().chain([2, 3, 4].map(|i| Argument::Pointer(Memory::Input(i))));
        let function = format!("contrastive_gradient_{dtype}");
        list.push(pairs.over(&function, &rows, &own.collect::<Vec<_>>()));
        if let Some(da) = da {
            let factors = [pairs.factor(made, false), pairs.factor(Memory::Input(1), false)];
            let (size, to) = ([rows.len(), pairs.columns, group], da.rows(rows.clone()));
            list.push(Launch::Matmul(pairs.product(size, factors, (to, dtype))));
        }
        if let Some(sums) = sums {
            let a = Memory::Input(0).rows(rows.clone());
            let factors = [pairs.factor(made, true), pairs.factor(a, false)];
            let product = pairs.product([group, pairs.columns, rows.len()], factors, sums);
            let adds = if rows.start > 0 { Accumulate::Always } else { Accumulate::Never };
            list.push(Launch::Matmul(Matmul { accumulate: adds, ..product }));
        }
    }
    if let Some((db, (sums, _))) = db.zip(sums).filter(|_| narrow) {
        let function = format!("cast_f32_{dtype}");
        let kernel = Kernel::over_elements("cast", function, db, pairs.columns);
        let about = kernel.rows(io).into_iter();
        let about = about.chain([pairs.columns as u32, 0].map(Argument::U32));
        list.push(kernel.with([sums, db].map(Argument::Pointer).into_iter().chain(about)));
    }
    if let Some(to) = dlog_scale {
        let own = [terms, Memory::Input(2), to].map(Argument::Pointer);
        let size = Argument::U32(group as u32);
        list.push(kernel("contrastive_log_scale", 1).with(own.into_iter().chain([size])));
    }
    Some(Launches { workspace_bytes: pairs.workspace_bytes, ..Launches::new(list) })
}
