//! What `rms_norm` asks of a GPU: a warp for each row; the weight's gradient as sums over rows.

use crate::launch::{Argument, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;
use crate::ops::column_sum::cuda::over_rows;
use crate::shape::Spec;

/// Rows of a block: one for each warp.
const ROWS: u32 = 8;

pub(crate) fn forward(io: &Io, function: &str, inputs: usize, eps: f32) -> Option<Launches> {
    let dtype = element(io.inputs.iter().chain(&io.outputs[..1]))?;
    let (rows, columns) = (Memory::Input(0), io.inputs[0].columns() as u32);
    let kernel = Kernel::over_rows("rms_norm", format!("{function}_{dtype}"), rows, ROWS);
    let rest = [Argument::U32(columns), Argument::F32(eps)];
    let rest = kernel.rows(io).into_iter().chain(rest);
    Some(Launches::new([kernel.with(pointers(inputs, io.outputs.len()).chain(rest))]))
}

pub(super) fn input_gradient(io: &Io) -> Option<Launches> {
    let dtype = element(io.inputs[..3].iter().chain(&io.outputs))?;
    let (rows, columns) = (Memory::Input(0), io.inputs[1].columns() as u32);
    let function = format!("rms_norm_input_gradient_{dtype}");
    let kernel = Kernel::over_rows("rms_norm", function, rows, ROWS);
    let rest = [Argument::U32(columns), Argument::Accumulate(0)];
    let rest = kernel.rows(io).into_iter().chain(rest);
    Some(Launches::new([kernel.with(pointers(4, 1).chain(rest))]))
}

pub(super) fn weight_gradient(io: &Io) -> Option<Launches> {
    let dtype = element(&io.inputs[..2])?;
    Some(over_rows(io, "rms_norm", format!("rms_norm_weight_terms_{dtype}"), &[]))
}

/// A sum and the norm of its rows: `a, b, w -> y, rstd, s`.
pub(crate) fn of_sum(io: &Io, eps: f32) -> Option<Launches> {
    let stored: [&Spec; 2] = [&io.outputs[0], &io.outputs[2]];
    element(stored)?;
    forward(io, "add_rms_norm", 3, eps)
}
