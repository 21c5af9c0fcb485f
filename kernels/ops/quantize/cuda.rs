//! What `quantize` and `dequantize` ask of a GPU: a block for some elements.

use crate::dtype::DType;
use crate::f8::Format;
use crate::launch::{Argument, Kernel, Launch, Launches, Memory, element, pointers};
use crate::ops::Io;

/// `function` over the elements of input 0, and what it is told of them.
fn over_elements(io: &Io, function: String) -> (Kernel, Vec<Argument>) {
    let columns = io.inputs[0].elements_per_row();
    let kernel = Kernel::over_elements("quantize", function, Memory::Input(0), columns);
    let about = kernel.rows(io).into_iter().chain([Argument::U32(columns as u32)]).collect();
    (kernel, about)
}

/// `Format` of quantize.cu.
fn format(dtype: DType) -> Option<(Format, impl Iterator<Item = Argument>)> {
    let format = Format::of(dtype)?;
    Some((format, format.parts().into_iter().map(Argument::U32)))
}

/// `x -> q, scale`.
pub(super) fn quantize(io: &Io) -> Option<Launches> {
    let (dtype, (format, parts)) = (element(&io.inputs)?, format(io.outputs[0].dtype)?);
    let most = Memory::Workspace { offset: 0, bytes: size_of::<u32>() };
    let operands = [Memory::Input(0), most].map(Argument::Pointer);
    let (largest, about) = over_elements(io, format!("quantize_largest_{dtype}"));
    let (codes, _) = over_elements(io, format!("quantize_{dtype}"));
    let rest = about.iter().copied().chain([Argument::F32(format.max())]).chain(parts);
    let list = [
        Launch::Zero(most),
        largest.with(operands.into_iter().chain(about.clone())),
        codes.with(operands.into_iter().chain(pointers(0, 2)).chain(rest)),
    ];
    Some(Launches { workspace_bytes: size_of::<u32>(), ..Launches::new(list) })
}

/// `q, scale -> x`.
pub(super) fn dequantize(io: &Io) -> Option<Launches> {
    let (dtype, (_, parts)) = (element(&io.outputs)?, format(io.inputs[0].dtype)?);
    let (kernel, about) = over_elements(io, format!("dequantize_{dtype}"));
    Some(Launches::new([kernel.with(pointers(2, 1).chain(about).chain(parts))]))
}
