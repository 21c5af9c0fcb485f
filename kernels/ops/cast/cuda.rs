//! What `cast` asks of a GPU: a block for each step of the leading dimension.

use crate::launch::{Argument, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;

pub(super) fn forward(io: &Io) -> Option<Launches> {
    let (from, to) = (element(&io.inputs)?, element(&io.outputs)?);
    let (rows, each) = (Memory::Input(0), io.inputs[0].elements_per_row() as u32);
    let kernel = Kernel::over_rows("cast", format!("cast_{from}_{to}"), rows, 1);
    let rest = [Argument::Live(rows), Argument::U32(each), Argument::Accumulate(0)];
    Some(Launches::new([kernel.with(pointers(1, 1).chain(rest))]))
}
