//! What `tanh` asks of a GPU: a block for some rows of the leading dimension.

use crate::launch::{Argument, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;

/// `function` of all inputs, element by element.
pub(super) fn launches(io: &Io, function: &str) -> Option<Launches> {
    let dtype = element(io.inputs.iter().chain(&io.outputs))?;
    let each = io.inputs[0].elements_per_row();
    let function = format!("{function}_{dtype}");
    let kernel = Kernel::over_elements("tanh", function, Memory::Input(0), each);
    let rest = kernel.rows(io).into_iter().chain([Argument::U32(each as u32)]);
    Some(Launches::new([kernel.with(pointers(io.inputs.len(), 1).chain(rest))]))
}
