//! What `slice_columns` asks of a GPU: a block for some rows. `concat_columns` moves columns too.

use crate::dtype::DType;
use crate::launch::{Argument, Kernel, Launch, Launches, Memory, element};
use crate::ops::Io;

/// Some columns of a matrix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns {
    pub(crate) memory: Memory,
    pub(crate) start: usize,
}

/// `count` columns, over the rows of the first operand's live extent or else the second's; `None`
/// for vectors, and for elements that are not compiled for.
pub(crate) fn moved(io: &Io, from: Columns, to: Columns, count: usize) -> Option<Launch> {
    let [source, target] = [from.memory.spec(io)?, to.memory.spec(io)?];
    let dtype = words([source.dtype, target.dtype])?;
    let of = if target.live.is_some() { to.memory } else { from.memory };
    let kernel = over_rows(io, format!("move_columns_{dtype}"), of)?;
    let places = [count, from.start, source.columns(), to.start, target.columns()];
    let operands = [from.memory, to.memory].map(Argument::Pointer);
    Some(finish(io, kernel, &operands, &places))
}

pub(super) fn gradient(io: &Io, start: usize, columns: usize) -> Option<Launches> {
    let dtype = element(io.inputs.iter().chain(&io.outputs))?;
    let kernel = over_rows(io, format!("slice_columns_gradient_{dtype}"), Memory::Input(0))?;
    let operands = [Memory::Input(0), Memory::Output(0)].map(Argument::Pointer);
    let places = [start, io.inputs[0].columns(), columns];
    Some(Launches::new([finish(io, kernel, &operands, &places)]))
}

/// Integers are moved as the floats of their bits.
pub(crate) fn words(dtypes: [DType; 2]) -> Option<DType> {
    match dtypes {
        [DType::I32, DType::I32] | [DType::F32, DType::F32] => Some(DType::F32),
        [DType::Bf16, DType::Bf16] => Some(DType::Bf16),
        _ => None,
    }
}

fn over_rows(io: &Io, function: String, of: Memory) -> Option<Kernel> {
    let spec = of.spec(io).filter(|spec| spec.shape.len() > 1)?;
    Some(Kernel::over_elements("slice_columns", function, of, spec.elements_per_row()))
}

/// Operands, rows, how many rows a step of the leading dimension has, places, whether it adds.
fn finish(io: &Io, kernel: Kernel, operands: &[Argument], places: &[usize]) -> Launch {
    let spec = &io.inputs[0];
    let inner = spec.elements_per_row() / spec.columns().max(1);
    let sizes = [&[inner], places].concat();
    let sizes = sizes.into_iter().map(|size| Argument::U32(size as u32));
    let rest = kernel.rows(io).into_iter().chain(sizes).chain([Argument::Accumulate(0)]);
    kernel.with(operands.iter().copied().chain(rest))
}
