//! What `rms_norm` asks of a GPU: a warp for each row; weights' gradients as sums over blocks of
//! rows, added up in order by a second kernel, so that their bits repeat.

use crate::launch::{Argument, Grid, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;
use crate::shape::Spec;

/// Rows of a block: one for each warp.
const ROWS: u32 = 8;
/// Rows whose terms one block of the weight's gradient adds.
const SUMMED_ROWS: usize = 128;
/// Columns that one block adds up.
const STRIP: u32 = 256;

pub(crate) fn forward(io: &Io, function: &str, inputs: usize, eps: f32) -> Option<Launches> {
    let dtype = element(io.inputs.iter().chain(&io.outputs[..1]))?;
    let (rows, columns) = (Memory::Input(0), io.inputs[0].columns() as u32);
    let kernel = Kernel::over_rows("rms_norm", format!("{function}_{dtype}"), rows, ROWS);
    let rest = [Argument::Live(rows), Argument::U32(columns), Argument::F32(eps)];
    Some(Launches::new([kernel.with(pointers(inputs, io.outputs.len()).chain(rest))]))
}

pub(super) fn input_gradient(io: &Io) -> Option<Launches> {
    let dtype = element(io.inputs[..3].iter().chain(&io.outputs))?;
    let (rows, columns) = (Memory::Input(0), io.inputs[1].columns() as u32);
    let function = format!("rms_norm_input_gradient_{dtype}");
    let kernel = Kernel::over_rows("rms_norm", function, rows, ROWS);
    let rest = [Argument::Live(rows), Argument::U32(columns), Argument::Accumulate(0)];
    Some(Launches::new([kernel.with(pointers(4, 1).chain(rest))]))
}

pub(super) fn weight_gradient(io: &Io) -> Option<Launches> {
    let dtype = element(&io.inputs[..2])?;
    let (rows, columns) = (Memory::Input(0), io.inputs[1].columns() as u32);
    let blocks = io.inputs[0].leading().div_ceil(SUMMED_ROWS);
    let workspace_bytes = blocks * columns as usize * size_of::<f32>();
    let sums = Argument::Pointer(Memory::Workspace { offset: 0, bytes: workspace_bytes });
    let [live, width] = [Argument::Live(rows), Argument::U32(columns)];
    let function = format!("rms_norm_weight_sums_{dtype}");
    let terms = Kernel::over_rows("rms_norm", function, rows, SUMMED_ROWS as u32);
    let total = Kernel {
        grid: Grid::Fixed([columns.div_ceil(STRIP), 1, 1]),
        ..Kernel::over_rows("rms_norm", "rms_norm_weight_total".to_string(), rows, 1)
    };
    let dw = Argument::Pointer(Memory::Output(0));
    let adds = Argument::Accumulate(0);
    let list = [
        terms.with(pointers(3, 0).chain([sums, live, width])),
        total.with([sums, dw, live, Argument::U32(blocks as u32), width, adds]),
    ];
    Some(Launches { workspace_bytes, ..Launches::new(list) })
}

/// A sum and the norm of its rows: `a, b, w -> y, rstd, s`.
pub(crate) fn of_sum(io: &Io, eps: f32) -> Option<Launches> {
    let stored: [&Spec; 2] = [&io.outputs[0], &io.outputs[2]];
    element(stored)?;
    forward(io, "add_rms_norm", 3, eps)
}
