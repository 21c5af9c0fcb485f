//! What `gather_rows` asks of a GPU: a block for some numbers; for the gradient one for some rows
//! and columns of x, which reads all numbers.

use crate::launch::{Argument, Grid, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;
use crate::ops::slice_columns::cuda::words;

/// Rows of x that a block of the gradient has, and columns; `OWN` of gather_rows.cu.
const OWN: [usize; 2] = [16, 256];

/// The live rows of an operand, and its capacity.
pub(crate) fn extent(io: &Io, of: Memory) -> [Argument; 2] {
    let capacity = of.spec(io).map_or(0, |spec| spec.leading());
    [Argument::Live(of), Argument::U32(capacity as u32)]
}

/// The rows of input 0 that the numbers of input 1 name: `per` numbers in a row, each row.
pub(crate) fn forward(io: &Io, per: usize) -> Option<Launches> {
    let dtype = words([io.inputs[0].dtype, io.outputs[0].dtype])?;
    let columns = io.inputs[0].elements_per_row();
    let function = format!("gather_rows_{dtype}");
    let kernel = Kernel::over_elements("gather_rows", function, Memory::Input(1), columns);
    let rest = kernel.rows(io).into_iter().chain([Argument::U32(columns as u32)]);
    let rest = rest.chain(extent(io, Memory::Input(0))).chain([Argument::U32(per as u32)]);
    Some(Launches::new([kernel.with(pointers(2, 1).chain(rest))]))
}

/// `index, dy -> dx`.
pub(super) fn gradient(io: &Io) -> Option<Launches> {
    let dtype = element([&io.inputs[1], &io.outputs[0]])?;
    let (rows, columns) = (io.outputs[0].leading(), io.outputs[0].elements_per_row());
    let blocks = [rows.div_ceil(OWN[0]) as u32, columns.div_ceil(OWN[1]) as u32, 1];
    let index = Memory::Input(0);
    let kernel = Kernel {
        grid: Grid::Fixed(blocks),
        ..Kernel::over_rows("gather_rows", format!("gather_rows_gradient_{dtype}"), index, 1)
    };
    let rest = extent(io, index).into_iter().chain([Argument::U32(columns as u32)]);
    let rest = rest.chain(extent(io, Memory::Output(0))).chain([Argument::Accumulate(0)]);
    Some(Launches::new([kernel.with(pointers(2, 1).chain(rest))]))
}
