//! What `multiply` asks of a GPU: a block for some rows of the leading dimension. A gradient's
//! output has no extent, so the rows are those of the factor that has one.

use crate::launch::{Argument, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;

pub(super) fn forward(io: &Io) -> Option<Launches> {
    let dtype = element(io.inputs.iter().chain(&io.outputs))?;
    let (each, of) = (io.inputs[0].elements_per_row(), usize::from(io.inputs[1].live.is_some()));
    let function = format!("multiply_{dtype}");
    let kernel = Kernel::over_elements("multiply", function, Memory::Input(of), each);
    let rest = [Argument::U32(each as u32), Argument::Accumulate(0)];
    let rest = kernel.rows(io).into_iter().chain(rest);
    Some(Launches::new([kernel.with(pointers(2, 1).chain(rest))]))
}
