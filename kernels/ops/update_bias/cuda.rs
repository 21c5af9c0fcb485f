//! What `update_bias` asks of a GPU: one block.

use crate::launch::{Argument, Grid, Kernel, Launches, Memory, pointers};
use crate::ops::Io;
use crate::ops::update_bias::UpdateBias;

pub(super) fn forward(io: &Io, op: &UpdateBias) -> Launches {
    let kernel = Kernel {
        grid: Grid::Fixed([1, 1, 1]),
        ..Kernel::over_rows("update_bias", "update_bias".to_string(), Memory::Input(0), 1)
    };
    let experts = Argument::U32(io.inputs[0].leading() as u32);
    let rest = [experts, Argument::F32(op.rate), Argument::Accumulate(0)];
    Launches::new([kernel.with(pointers(1, 1).chain(rest))])
}
