//! What `layer_norm` asks of a GPU: a warp for each row; the weight's gradient as sums over rows.

use crate::launch::{Argument, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;
use crate::ops::column_sum::cuda::over_rows;

/// Rows of a block: one for each warp.
const ROWS: u32 = 8;

/// `x, w, b -> y, mean, rstd`; of a sum: `a, b, w, c -> y, mean, rstd, s`.
pub(crate) fn forward(io: &Io, function: &str, eps: f32) -> Option<Launches> {
    let stored = [&io.outputs[0]].into_iter().chain(io.outputs.get(3));
    let dtype = element(io.inputs.iter().chain(stored))?;
    let (rows, columns) = (Memory::Input(0), io.inputs[0].columns() as u32);
    let kernel = Kernel::over_rows("layer_norm", format!("{function}_{dtype}"), rows, ROWS);
    let rest = [Argument::U32(columns), Argument::F32(eps)];
    let rest = kernel.rows(io).into_iter().chain(rest);
    let operands = pointers(io.inputs.len(), io.outputs.len());
    Some(Launches::new([kernel.with(operands.chain(rest))]))
}

pub(super) fn input_gradient(io: &Io) -> Option<Launches> {
    let dtype = element(io.inputs[..3].iter().chain(&io.outputs))?;
    let (rows, columns) = (Memory::Input(0), io.inputs[1].columns() as u32);
    let function = format!("layer_norm_input_gradient_{dtype}");
    let kernel = Kernel::over_rows("layer_norm", function, rows, ROWS);
    let rest = [Argument::U32(columns), Argument::Accumulate(0)];
    let rest = kernel.rows(io).into_iter().chain(rest);
    Some(Launches::new([kernel.with(pointers(5, 1).chain(rest))]))
}

pub(super) fn weight_gradient(io: &Io) -> Option<Launches> {
    let dtype = element(&io.inputs[..2])?;
    Some(over_rows(io, "layer_norm", format!("layer_norm_weight_terms_{dtype}"), &[]))
}
