//! What `swiglu` asks of a GPU: a block for each row.

use crate::launch::{Argument, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;

pub(super) fn forward(io: &Io) -> Option<Launches> {
    launches(io, "swiglu", 1, io.outputs[0].columns())
}

pub(super) fn gradient(io: &Io) -> Option<Launches> {
    launches(io, "swiglu_gradient", 2, io.inputs[0].columns())
}

/// Function, number of inputs, and half the columns of x.
fn launches(io: &Io, function: &str, inputs: usize, half: usize) -> Option<Launches> {
    let dtype = element(io.inputs.iter().chain(&io.outputs))?;
    let rows = Memory::Input(0);
    let kernel = Kernel::over_rows("swiglu", format!("{function}_{dtype}"), rows, 1);
    let rest = [Argument::Live(rows), Argument::U32(half as u32)];
    Some(Launches::new([kernel.with(pointers(inputs, 1).chain(rest))]))
}
