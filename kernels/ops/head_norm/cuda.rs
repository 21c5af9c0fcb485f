//! What `head_norm` asks of a GPU: a warp for each head; a weight's gradient as sums over rows and
//! heads.

use crate::launch::{Argument, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;
use crate::ops::column_sum::cuda::over_rows;
use crate::ops::head_norm::HeadNorm;

/// Elements of a head that the threads of a block have in one pack each.
const HEAD_MAX: usize = 256 * 8;
/// Heads of a block, about: some for each warp.
const BLOCK_HEADS: usize = 32;

impl HeadNorm {
    /// Query heads, key heads.
    fn counts(&self) -> [Argument; 2] {
        [self.heads, self.kv_heads].map(|count| Argument::U32(count as u32))
    }
}

pub(super) fn forward(io: &Io, norm: &HeadNorm) -> Option<Launches> {
    element(&io.outputs[..1])?;
    launches(io, norm, "head_norm", io.inputs[1].columns(), &[Argument::F32(norm.eps)])
}

pub(super) fn input_gradient(io: &Io, norm: &HeadNorm) -> Option<Launches> {
    element(io.inputs[..1].iter().chain(&io.outputs))?;
    launches(io, norm, "head_norm_input_gradient", io.inputs[2].columns(), &[])
}

/// Over the heads of all rows.
fn launches(
    io: &Io,
    norm: &HeadNorm,
    function: &str,
    elements: usize,
    more: &[Argument],
) -> Option<Launches> {
    let floats = io.inputs.len().min(4);
    let dtype = element(&io.inputs[..floats])?;
    let each = (BLOCK_HEADS / (norm.heads + 2 * norm.kv_heads)).max(1);
    let function = format!("{function}_{dtype}");
    let kernel = Kernel::over_rows("head_norm", function, Memory::Input(0), each as u32);
    let rest = kernel.rows(io).into_iter().chain(norm.counts());
    let rest = rest.chain([Argument::U32(elements as u32)]).chain(more.iter().copied());
    Some(Launches::new([kernel.with(pointers(io.inputs.len(), io.outputs.len()).chain(rest))]))
}

/// Of the key heads' weight or of the query heads'.
pub(super) fn weight_gradient(io: &Io, norm: &HeadNorm, keys: bool) -> Option<Launches> {
    let dtype = element(&io.inputs[..2])?;
    if io.outputs[0].elements() > HEAD_MAX {
        return None;
    }
    let (first, count) = if keys { (norm.heads, norm.kv_heads) } else { (0, norm.heads) };
    let [queries, key_heads] = norm.counts();
    let part = [first, count].map(|n| Argument::U32(n as u32));
    let more = [queries, key_heads, part[0], part[1]];
    Some(over_rows(io, "head_norm", format!("head_norm_weight_terms_{dtype}"), &more))
}
