//! What `fill` asks of a GPU: a block for some rows of the leading dimension.

use crate::launch::{Argument, Kernel, Launches, Memory, pointers};
use crate::ops::Io;

pub(super) fn forward(io: &Io, value: f32) -> Option<Launches> {
    let each = io.outputs[0].elements_per_row();
    let kernel = Kernel::over_elements("fill", "fill".to_string(), Memory::Output(0), each);
    let rest = [Argument::U32(each as u32), Argument::F32(value)];
    let rest = kernel.rows(io).into_iter().chain(rest);
    Some(Launches::new([kernel.with(pointers(0, 1).chain(rest))]))
}
