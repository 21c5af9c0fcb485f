//! What `mean_pool` asks of a GPU: a block for each sequence.

use crate::launch::{Argument, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;

/// `x, mask? -> y`.
pub(super) fn forward(io: &Io) -> Option<Launches> {
    launches(io, "mean_pool", io.inputs[0].shape[1], None)
}

/// `dy, mask? -> dx`.
pub(super) fn gradient(io: &Io, positions: usize) -> Option<Launches> {
    launches(io, "mean_pool_gradient", positions, Some(Argument::Accumulate(0)))
}

fn launches(io: &Io, function: &str, positions: usize, adds: Option<Argument>) -> Option<Launches> {
    let dtype = element([&io.inputs[0], &io.outputs[0]])?;
    let function = format!("{function}_{dtype}");
    let kernel = Kernel::over_rows("mean_pool", function, Memory::Input(0), 1);
    let mask = match io.inputs.len() {
        1 => Argument::Null,
        _ => Argument::Pointer(Memory::Input(1)),
    };
    let sizes = [positions, io.outputs[0].columns()].map(|size| Argument::U32(size as u32));
    let rest = kernel.rows(io).into_iter().chain(sizes).chain(adds);
    let operands = [Argument::Pointer(Memory::Input(0)), mask].into_iter().chain(pointers(0, 1));
    Some(Launches::new([kernel.with(operands.chain(rest))]))
}
