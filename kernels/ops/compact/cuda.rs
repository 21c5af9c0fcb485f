//! What `compact` asks of a GPU: one block, which goes over the mask in order.

use crate::launch::{Argument, Grid, Kernel, Launches, Memory, pointers};
use crate::ops::Io;
use crate::ops::gather_rows::cuda::extent;

pub(super) fn forward(io: &Io, capacity: usize) -> Option<Launches> {
    let mask = Memory::Input(0);
    let kernel = Kernel {
        grid: Grid::Fixed([1, 1, 1]),
        block: 1024,
        ..Kernel::over_rows("compact", "compact".to_string(), mask, 1)
    };
    let rest = [Argument::Overflow].into_iter().chain(extent(io, mask));
    let rest = rest.chain([Argument::U32(capacity as u32)]);
    Some(Launches::new([kernel.with(pointers(1, 2).chain(rest))]))
}
