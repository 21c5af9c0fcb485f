//! What `scatter_rows` asks of a GPU: what `copy` does, then the replaced rows.

use crate::launch::{Argument, Kernel, Launches, Memory, pointers};
use crate::ops::gather_rows::cuda::extent;
use crate::ops::slice_columns::cuda::words;
use crate::ops::{Io, copy};

pub(super) fn scatter(io: &Io) -> Option<Launches> {
    copied(io, Argument::Pointer(Memory::Input(1)), Memory::Input(2))
}

pub(super) fn clear(io: &Io) -> Option<Launches> {
    copied(io, Argument::Null, Memory::Input(1))
}

/// A copy of input 0 with `values` in the rows that `index` names.
fn copied(io: &Io, values: Argument, index: Memory) -> Option<Launches> {
    let dtype = words([io.inputs[0].dtype, io.outputs[0].dtype])?;
    let columns = io.inputs[0].elements_per_row();
    let function = format!("scatter_rows_{dtype}");
    let kernel = Kernel::over_elements("scatter_rows", function, index, columns);
    let rest = kernel.rows(io).into_iter().chain([Argument::U32(columns as u32)]);
    let rest = rest.chain(extent(io, Memory::Output(0)));
    let operands = [values, Argument::Pointer(index)].into_iter().chain(pointers(0, 1));
    let whole = Io { inputs: io.inputs[..1].to_vec(), outputs: io.outputs.clone() };
    let mut launches = copy::cuda::forward(&whole)?;
    launches.list.push(kernel.with(operands.chain(rest)));
    Some(launches)
}
