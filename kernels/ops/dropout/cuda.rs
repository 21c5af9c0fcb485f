//! What `dropout` asks of a GPU: a block for some rows. Not for samples of 2^32 elements or more.

use crate::launch::{Argument, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;

pub(super) fn forward(io: &Io, rate: f32, rows_per_sample: usize) -> Option<Launches> {
    let dtype = element(io.inputs.iter().chain(&io.outputs))?;
    let columns = io.inputs[0].columns();
    u32::try_from(rows_per_sample * columns).ok()?;
    let function = format!("dropout_{dtype}");
    let kernel = Kernel::over_elements("dropout", function, Memory::Input(0), columns);
    let rest = [
        Argument::U32(columns as u32),
        Argument::F32(rate),
        Argument::F32(1.0 / (1.0 - rate)),
        Argument::U32(rows_per_sample as u32),
        Argument::Key,
        Argument::RunArguments,
    ];
    let rest = kernel.rows(io).into_iter().chain(rest);
    Some(Launches::new([kernel.with(pointers(1, 1).chain(rest))]))
}
