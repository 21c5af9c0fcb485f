//! What `l2_normalize` asks of a GPU: a warp for each row.

use crate::launch::{Argument, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;

/// Rows of a block: one for each warp.
const ROWS: u32 = 8;

pub(super) fn forward(io: &Io, eps: f32) -> Option<Launches> {
    element([&io.inputs[0], &io.outputs[0]])?;
    launches(io, "l2_normalize", Memory::Input(0), [Some(Argument::F32(eps)), None])
}

/// `dy, x, norms -> dx`.
pub(super) fn gradient(io: &Io, eps: f32) -> Option<Launches> {
    element(io.inputs[..2].iter().chain(&io.outputs))?;
    let rest = [Argument::F32(eps), Argument::Accumulate(0)].map(Some);
    launches(io, "l2_normalize_gradient", Memory::Input(1), rest)
}

fn launches(io: &Io, function: &str, x: Memory, rest: [Option<Argument>; 2]) -> Option<Launches> {
    let spec = x.spec(io)?;
    let function = format!("{function}_{}", spec.dtype);
    let kernel = Kernel::over_rows("l2_normalize", function, x, ROWS);
    let about = kernel.rows(io).into_iter().chain([Argument::U32(spec.columns() as u32)]);
    let operands = pointers(io.inputs.len(), io.outputs.len());
    let arguments = operands.chain(about).chain(rest.into_iter().flatten());
    Some(Launches::new([kernel.with(arguments)]))
}
