//! What `combine` asks of a GPU: a block for some tokens or rows; for the gradient of weights a
//! warp for each token.

use crate::dtype::DType;
use crate::launch::{Argument, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;
use crate::shape::Spec;

/// Tokens of a block of inner products: one for each warp.
const TOKENS: u32 = 8;

/// `T_W` of combine.cu: rows, and weights that are as narrow or `F32`.
fn weighed<'s>(rows: impl IntoIterator<Item = &'s Spec>, weight: &Spec) -> Option<String> {
    let (rows, weight) = (element(rows)?, element([weight])?);
    let compiled = weight == DType::F32 || rows == DType::Bf16;
    compiled.then(|| format!("{rows}_{weight}"))
}

/// `rows, row_of, weight -> y`.
pub(super) fn forward(io: &Io) -> Option<Launches> {
    let dtypes = weighed([&io.inputs[0], &io.outputs[0]], &io.inputs[2])?;
    Some(over(io, format!("combine_{dtypes}"), [Memory::Input(1); 2], pointers(3, 1)))
}

/// `rows, row_of -> y`.
pub(super) fn sum(io: &Io) -> Option<Launches> {
    let dtype = element([&io.inputs[0], &io.outputs[0]])?;
    let operands = pointers(2, 0).chain([Argument::Null]).chain(pointers(0, 1));
    let function = format!("combine_{dtype}_f32");
    Some(over(io, function, [Memory::Input(1); 2], operands))
}

/// `dy, pair_of, weight -> drows`.
pub(super) fn rows_gradient(io: &Io) -> Option<Launches> {
    let dtypes = weighed([&io.inputs[0], &io.outputs[0]], &io.inputs[2])?;
    let function = format!("combine_rows_gradient_{dtypes}");
    Some(over(io, function, [Memory::Input(1), Memory::Input(2)], pointers(3, 1)))
}

/// `dy, rows, row_of -> dweight`.
pub(super) fn weight_gradient(io: &Io) -> Option<Launches> {
    let function = format!("combine_weight_gradient_{}", element(&io.inputs[..2])?);
    let kernel = Kernel::over_rows("combine", function, Memory::Input(2), TOKENS);
    Some(launches(io, kernel, Memory::Input(2), pointers(3, 1)))
}

/// A kernel over the elements of the rows that `of` has, and an operand that says how many choices
/// a token has.
fn over(
    io: &Io,
    function: String,
    [of, choices]: [Memory; 2],
    operands: impl Iterator<Item = Argument>,
) -> Launches {
    let kernel = Kernel::over_elements("combine", function, of, io.outputs[0].columns());
    launches(io, kernel, choices, operands)
}

fn launches(
    io: &Io,
    kernel: Kernel,
    choices: Memory,
    operands: impl Iterator<Item = Argument>,
) -> Launches {
    let k = choices.spec(io).map_or(0, Spec::columns);
    let sizes = [io.inputs[0].columns(), k].map(|size| Argument::U32(size as u32));
    let about = kernel.rows(io).into_iter().chain(sizes).chain([Argument::Accumulate(0)]);
    Launches::new([kernel.with(operands.chain(about))])
}
