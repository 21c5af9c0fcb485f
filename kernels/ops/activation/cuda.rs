//! What activation functions ask of a GPU: a block for some rows of the leading dimension.

use crate::launch::{Argument, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;

/// `function` of the inputs, the last of which is the operand.
pub(super) fn of(io: &Io, function: &str) -> Option<Launches> {
    let dtype = element(io.inputs.iter().chain(&io.outputs))?;
    let (each, inputs) = (io.inputs[0].elements_per_row(), io.inputs.len());
    let function = format!("{function}_{dtype}");
    let kernel = Kernel::over_elements("activation", function, Memory::Input(0), each);
    let rest = kernel.rows(io).into_iter().chain([Argument::U32(each as u32)]);
    Some(Launches::new([kernel.with(pointers(inputs, 1).chain(rest))]))
}
