//! What `embedding` asks of a GPU: a block for each token. The gradient needs the tokens in order
//! first and has no kernels yet.

use crate::launch::{Argument, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;

pub(super) fn forward(io: &Io) -> Option<Launches> {
    let dtype = element(&io.inputs[1..])?;
    let tokens = Memory::Input(0);
    let [rows, columns] = [io.inputs[1].leading(), io.inputs[1].columns()];
    let kernel = Kernel::over_rows("embedding", format!("embedding_{dtype}"), tokens, 1);
    let sizes = [rows, columns].map(|size| Argument::U32(size as u32));
    let rest = [Argument::Live(tokens)].into_iter().chain(sizes);
    Some(Launches::new([kernel.with(pointers(2, 1).chain(rest))]))
}
