//! What `binary_cross_entropy` asks of a GPU: one block that adds all terms in order; for the
//! gradient a block for some elements.

use crate::launch::{Argument, Grid, Kernel, Launches, element, pointers};
use crate::ops::Io;
use crate::ops::loss::live_of;

/// As launches name it.
const MODULE: &str = "binary_cross_entropy";

pub(super) fn forward(io: &Io) -> Option<Launches> {
    let (dtype, rows) = (element(&io.inputs[..1])?, live_of(io, 0, 1)?);
    let kernel = Kernel {
        grid: Grid::Fixed([1, 1, 1]),
        ..Kernel::over_rows(MODULE, format!("{MODULE}_{dtype}"), rows, 1)
    };
    let rows = [Argument::Live(rows), Argument::U32(io.inputs[0].leading() as u32)];
    Some(Launches::new([kernel.with(pointers(3, 3).chain(rows))]))
}

pub(super) fn gradient(io: &Io) -> Option<Launches> {
    let (dtype, rows) = (element(io.inputs[..1].iter().chain(&io.outputs))?, live_of(io, 0, 1)?);
    let kernel = Kernel::over_elements(MODULE, format!("{MODULE}_gradient_{dtype}"), rows, 1);
    let rest = kernel.rows(io).into_iter().chain([Argument::Accumulate(0)]);
    Some(Launches::new([kernel.with(pointers(4, 1).chain(rest))]))
}
