//! What `column_sum` asks of a GPU: sums over blocks of rows, and their total in order, so that
//! bits repeat. Other gradients of weights end likewise.

use crate::launch::{Argument, Grid, Kernel, Launch, Launches, Memory, element, pointers};
use crate::ops::Io;

/// Rows whose terms one block adds, as many as on the CPU.
pub(crate) const ROWS: usize = 64;
/// Threads of a block of the total, and columns that it adds up: few, so that blocks are many.
const STRIP: usize = 32;

pub(super) fn forward(io: &Io) -> Option<Launches> {
    let dtype = element(&io.inputs)?;
    Some(over_rows(io, "column_sum", format!("column_sum_terms_{dtype}"), &[]))
}

/// `function` of a module adds up its terms over the rows of input 0, which are as long as output
/// 0, for each block of rows; their total is output 0. `more` is what the function takes besides.
pub(crate) fn over_rows(
    io: &Io,
    module: &'static str,
    function: String,
    more: &[Argument],
) -> Launches {
    let (rows, columns) = (Memory::Input(0), io.outputs[0].elements());
    let terms = Kernel::over_rows(module, function, rows, ROWS as u32);
    let blocks = io.inputs[0].leading().div_ceil(ROWS);
    let workspace_bytes = blocks * columns * size_of::<f32>();
    let sums = Argument::Pointer(Memory::Workspace { offset: 0, bytes: workspace_bytes });
    let about = terms.rows(io).into_iter().chain([Argument::U32(columns as u32)]);
    let total = Kernel {
        grid: Grid::Fixed([columns.div_ceil(STRIP) as u32, 1, 1]),
        block: STRIP as u32,
        ..Kernel::over_rows("column_sum", "column_sum_total".to_string(), rows, ROWS as u32)
    };
    let from_sums = [sums, Argument::Pointer(Memory::Output(0))].into_iter().chain(about.clone());
    let list = [
        terms.with(pointers(io.inputs.len(), 0).chain([sums]).chain(about).chain(more.to_vec())),
        total.with(from_sums.chain([Argument::Accumulate(0)])),
    ];
    Launches { workspace_bytes, ..Launches::new(list) }
}

/// Sums over `rows` rows of so many `f32` that lie in the scratch, by way of `sums`; `to` says
/// where they go and whether they are added.
pub(crate) fn of_scratch(
    from: Memory,
    sums: Memory,
    [rows, columns]: [usize; 2],
    (to, adds): (Memory, Argument),
) -> [Launch; 2] {
    let kernel = |function: &str, blocks: usize, threads: usize| Kernel {
        grid: Grid::Fixed([blocks as u32, 1, 1]),
        block: threads as u32,
        ..Kernel::over_rows("column_sum", function.to_string(), from, ROWS as u32)
    };
    let sizes = [rows, ROWS, columns].map(|size| Argument::U32(size as u32));
    let about = [Argument::Null].into_iter().chain(sizes);
    let [from, sums, to] = [from, sums, to].map(Argument::Pointer);
    [
        kernel("column_sum_terms_f32", rows.div_ceil(ROWS), 256)
            .with([from, sums].into_iter().chain(about.clone())),
        kernel("column_sum_total", columns.div_ceil(STRIP), STRIP)
            .with([sums, to].into_iter().chain(about).chain([adds])),
    ]
}
