//! What integer rules ask of a GPU: a block for some rows of the leading dimension; for the total
//! one block.

use crate::launch::{Argument, Grid, Kernel, Launches, Memory, pointers};
use crate::ops::Io;
use crate::ops::integers::Rule;

pub(super) fn forward(io: &Io, rule: Rule) -> Option<Launches> {
    let (function, constant) = match rule {
        Rule::NotEqual => ("not_equal", 0),
        Rule::Add => ("add_integers", 0),
        Rule::KeepOr(constant) => ("keep_or", constant),
        Rule::LessThan(constant) => ("less_than", constant),
    };
    let live = io.inputs.iter().position(|spec| spec.live.is_some()).unwrap_or(0);
    let each = io.inputs[0].elements_per_row();
    let rows = Memory::Input(live);
    let kernel = Kernel::over_elements("integers", function.to_string(), rows, each);
    let second = match io.inputs.len() {
        1 => Argument::Null,
        _ => Argument::Pointer(Memory::Input(1)),
    };
    let operands = [Argument::Pointer(Memory::Input(0)), second];
    let rest = [Argument::U32(each as u32), Argument::U32(constant.cast_unsigned())];
    let rest = kernel.rows(io).into_iter().chain(rest);
    let operands = operands.into_iter().chain(pointers(0, 1));
    Some(Launches::new([kernel.with(operands.chain(rest))]))
}

pub(super) fn total(io: &Io) -> Option<Launches> {
    let rows = Memory::Input(0);
    let kernel = Kernel {
        grid: Grid::Fixed([1, 1, 1]),
        ..Kernel::over_rows("integers", "total".to_string(), rows, 1)
    };
    let sizes = [io.inputs[0].leading(), io.inputs[0].elements_per_row()];
    let sizes = sizes.map(|size| Argument::U32(size as u32));
    let rest = [Argument::Live(rows)].into_iter().chain(sizes);
    Some(Launches::new([kernel.with(pointers(1, 1).chain(rest))]))
}
