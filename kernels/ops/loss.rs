//! What losses share: their outputs and their scale.
//!
//! A loss is a sum of terms in f64, in a fixed order; `loss = scale * sum` is what backward starts
//! from, `sum` and the count of targets are for reports, and nothing flows back through those.

use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::launch::{Argument, Grid, Kernel, Launches, Memory, element, pointers};
use crate::ops::{Io, Op};
use crate::shape::Spec;

/// Rows of a block on a GPU: one for each warp.
const ROWS: u32 = 8;

/// Specs of `loss f32[]` and `loss_sum f32[]`.
pub(crate) fn loss_specs() -> [Spec; 2] {
    [Spec::scalar(DType::F32), Spec::scalar(DType::F32)]
}

/// Refuses what is not one `f32`.
pub(crate) fn expect_scalar(spec: &Spec, what: &str) -> std::result::Result<(), String> {
    if spec.elements() == 1 && spec.dtype == DType::F32 {
        return Ok(());
    }
    Err(format!("{what} is {spec}, not one f32"))
}

/// Adds a loss whose last input is its scale; nothing flows back to the scale or from the sum.
pub(crate) fn apply_loss(
    g: &mut Graph<'_>,
    op: impl Op + 'static,
    inputs: &[Tensor],
) -> Result<Vec<Tensor>> {
    let mut inputs = inputs.to_vec();
    if let Some(scale) = inputs.last_mut() {
        *scale = g.stop_gradient(*scale);
    }
    let mut outputs = g.apply(op, &inputs)?;
    outputs[1] = g.stop_gradient(outputs[1]);
    Ok(outputs)
}

/// The operand whose live rows those of both inputs are; `None` if they have two extents.
pub(crate) fn live_of(io: &Io, a: usize, b: usize) -> Option<Memory> {
    match (io.inputs[a].live, io.inputs[b].live) {
        (Some(of_a), Some(of_b)) if of_a != of_b => None,
        (None, Some(_)) => Some(Memory::Input(b)),
        _ => Some(Memory::Input(a)),
    }
}

/// What a loss over rows asks of a GPU: a warp of `NAME_<dtype>` for the `f64` term of each row of
/// the first two inputs, and `NAME_total` of `loss.cuh`, which counts the second's if there is a
/// third output. `more` is what the first takes besides.
pub(crate) fn of_rows(io: &Io, name: &'static str, more: &[Argument]) -> Option<Launches> {
    let floats = io.inputs[..2].iter().filter(|spec| spec.dtype != DType::I32);
    let (dtype, rows) = (element(floats)?, live_of(io, 0, 1)?);
    let bytes = io.inputs[0].leading() * size_of::<f64>();
    let terms = Memory::Workspace { offset: 0, bytes };
    let kernel = Kernel::over_rows(name, format!("{name}_{dtype}"), rows, ROWS);
    let [of_rows, capacity, each] = kernel.rows(io);
    let columns = Argument::U32(io.inputs[0].elements_per_row() as u32);
    let own = pointers(2, 0).chain([Argument::Pointer(terms), of_rows, capacity, each, columns]);
    let total = Kernel {
        grid: Grid::Fixed([1, 1, 1]),
        ..Kernel::over_rows(name, format!("{name}_total"), rows, ROWS)
    };
    let labels = (io.outputs.len() > 2).then_some(Memory::Input(1));
    let targets = labels.map(|_| Memory::Output(2));
    let [labels, targets] = [labels, targets].map(|m| m.map_or(Argument::Null, Argument::Pointer));
    let [scale, loss, sum] =
        [Memory::Input(2), Memory::Output(0), Memory::Output(1)].map(Argument::Pointer);
    let list = [
        kernel.with(own.chain(more.to_vec())),
        total.with([
            Argument::Pointer(terms),
            labels,
            scale,
            loss,
            sum,
            targets,
            of_rows,
            capacity,
        ]),
    ];
    Some(Launches { workspace_bytes: bytes, ..Launches::new(list) })
}

/// Its gradient, of the first input: `NAME_gradient_<dtype>` likewise.
pub(crate) fn gradient_of_rows(io: &Io, name: &'static str, more: &[Argument]) -> Option<Launches> {
    let floats = io.inputs[..2].iter().chain(&io.outputs).filter(|spec| spec.dtype != DType::I32);
    let (dtype, rows) = (element(floats)?, live_of(io, 0, 1)?);
    let kernel = Kernel::over_rows(name, format!("{name}_gradient_{dtype}"), rows, ROWS);
    let columns = Argument::U32(io.inputs[0].elements_per_row() as u32);
    let about = kernel.rows(io).into_iter().chain([columns]).chain(more.to_vec());
    let own = pointers(4, 1).chain(about).chain([Argument::Accumulate(0)]);
    Some(Launches::new([kernel.with(own)]))
}
