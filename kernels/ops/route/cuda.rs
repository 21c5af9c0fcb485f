//! What `route` asks of a GPU: a warp for each token; counts are zeros before.

use crate::dtype::DType;
use crate::launch::{Argument, Kernel, Launch, Launches, Memory, element, pointers};
use crate::ops::Io;
use crate::ops::route::{Route, Score};

/// Tokens of a block, two for each warp: few enough that all multiprocessors have some, enough that
/// a block adds to the counts once for several.
const TOKENS: u32 = 16;

/// `function` over the rows of the logits, and what it is told of them and of the choice.
fn kernel(io: &Io, rule: &Route, function: &str) -> Option<(Kernel, Vec<Argument>)> {
    let function = format!("{function}_{}", element(&io.inputs[..1])?);
    let kernel = Kernel::over_rows("route", function, Memory::Input(0), TOKENS);
    let sizes = [io.inputs[0].columns(), rule.top_k].map(|size| size as u32);
    let choice = [rule.score == Score::Softmax, rule.normalize].map(u32::from);
    let about = sizes.into_iter().chain(choice).map(Argument::U32);
    let about = kernel.rows(io).into_iter().chain(about).collect();
    Some((kernel, about))
}

pub(super) fn forward(io: &Io, rule: &Route) -> Option<Launches> {
    if io.inputs[1..].iter().any(|bias| bias.dtype != DType::F32) {
        return None;
    }
    let (kernel, about) = kernel(io, rule, "route")?;
    let bias = io.inputs.get(1).map_or(Argument::Null, |_| Argument::Pointer(Memory::Input(1)));
    let operands = pointers(1, 0).chain([bias]).chain(pointers(0, 3));
    let counts = Launch::Zero(Memory::Output(2));
    Some(Launches::new([counts, kernel.with(operands.chain(about))]))
}

/// `logits, expert, dweight -> dlogits`.
pub(super) fn gradient(io: &Io, rule: &Route) -> Option<Launches> {
    element([&io.inputs[0], &io.outputs[0]])?;
    let (kernel, about) = kernel(io, rule, "route_gradient")?;
    let rest = about.into_iter().chain([Argument::Accumulate(0)]);
    Some(Launches::new([kernel.with(pointers(3, 1).chain(rest))]))
}
