//! What `copy` asks of a GPU: what `cast` does; integers have a kernel of their own.

use crate::dtype::DType;
use crate::launch::{Argument, Kernel, Launches, Memory, pointers};
use crate::ops::{Io, cast};

pub(crate) fn forward(io: &Io) -> Option<Launches> {
    if io.inputs[0].dtype != DType::I32 {
        return cast::cuda::forward(io);
    }
    let each = io.inputs[0].elements_per_row();
    let function = "copy_i32".to_string();
    let kernel = Kernel::over_elements("copy", function, Memory::Input(0), each);
    let rest = [Argument::U32(each as u32), Argument::Accumulate(0)];
    let rest = kernel.rows(io).into_iter().chain(rest);
    Some(Launches::new([kernel.with(pointers(1, 1).chain(rest))]))
}
