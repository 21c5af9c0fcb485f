//! What `add` asks of a GPU: a block for each step of the leading dimension.

use crate::launch::{Argument, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;

pub(super) fn forward(io: &Io) -> Option<Launches> {
    let dtype = element(io.inputs.iter().chain(&io.outputs))?;
    let (rows, each) = (Memory::Output(0), io.outputs[0].elements_per_row() as u32);
    let kernel = Kernel::over_rows("add", format!("add_{dtype}"), rows, 1);
    let rest = [Argument::Live(rows), Argument::U32(each), Argument::Accumulate(0)];
    Some(Launches::new([kernel.with(pointers(2, 1).chain(rest))]))
}
