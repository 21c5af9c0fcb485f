//! What `scale` asks of a GPU: a block for some rows of the leading dimension.

use crate::launch::{Argument, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;

pub(super) fn forward(io: &Io, factor: f32) -> Option<Launches> {
    let dtype = element(io.inputs.iter().chain(&io.outputs))?;
    let each = io.inputs[0].elements_per_row();
    let kernel = Kernel::over_elements("scale", format!("scale_{dtype}"), Memory::Input(0), each);
    let rest = [Argument::U32(each as u32), Argument::F32(factor), Argument::Accumulate(0)];
    let rest = kernel.rows(io).into_iter().chain(rest);
    Some(Launches::new([kernel.with(pointers(1, 1).chain(rest))]))
}
