//! What `swiglu` asks of a GPU: a block for some rows.

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
    let function = format!("{function}_{dtype}");
    let kernel = Kernel::over_elements("swiglu", function, Memory::Input(0), half);
    let rest = kernel.rows(io).into_iter().chain([Argument::U32(half as u32)]);
    Some(Launches::new([kernel.with(pointers(inputs, 1).chain(rest))]))
}
