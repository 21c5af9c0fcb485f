//! What `embedding` asks of a GPU: a block for some tokens; for the gradient one for some rows of
//! the table, which reads all tokens.

use crate::launch::{Argument, Grid, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;

/// Rows of the table that a block of the gradient has; `OWN` of embedding.cu.
const OWN: usize = 8;

pub(super) fn forward(io: &Io) -> Option<Launches> {
    let dtype = element(&io.inputs[1..])?;
    let [size, columns] = [io.inputs[1].leading(), io.inputs[1].columns()];
    let function = format!("embedding_{dtype}");
    let kernel = Kernel::over_elements("embedding", function, Memory::Input(0), columns);
    let rest = kernel.rows(io).into_iter().chain([size, columns].map(|n| Argument::U32(n as u32)));
    Some(Launches::new([kernel.with(pointers(2, 1).chain(rest))]))
}

/// `tokens, dy -> table`.
pub(super) fn gradient(io: &Io) -> Option<Launches> {
    let dtype = element(&io.inputs[1..])?;
    let [size, columns] = [io.outputs[0].leading(), io.outputs[0].columns()];
    let tokens = Memory::Input(0);
    let kernel = Kernel {
        grid: Grid::Fixed([size.div_ceil(OWN) as u32, 1, 1]),
        ..Kernel::over_rows("embedding", format!("embedding_gradient_{dtype}"), tokens, 1)
    };
    let rows = [Argument::Live(tokens), Argument::U32(io.inputs[0].leading() as u32)];
    let sizes = [Argument::U32(size as u32), Argument::U32(columns as u32)];
    let rest = rows.into_iter().chain(sizes).chain([Argument::Accumulate(0)]);
    Some(Launches::new([kernel.with(pointers(2, 1).chain(rest))]))
}
