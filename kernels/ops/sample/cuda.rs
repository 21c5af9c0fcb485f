//! What `sample` asks of a GPU: a block for each row.

use crate::launch::{Argument, Grid, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;

pub(super) fn launches(io: &Io, temperature: f32) -> Option<Launches> {
    let (dtype, rows) = (element(&io.inputs[..1])?, io.inputs[0].leading());
    let logits = Memory::Input(0);
    let kernel = Kernel {
        grid: Grid::Fixed([rows.max(1) as u32, 1, 1]),
        ..Kernel::over_rows("sample", format!("sample_{dtype}"), logits, 1)
    };
    let live = [0, 1, 2].map(|i| Argument::Live(Memory::Input(i)));
    let sizes = [rows, io.inputs[0].columns()].map(|size| Argument::U32(size as u32));
    let rate = if temperature == 0.0 { 0.0 } else { 1.0 / temperature };
    let rest = [Argument::RunArguments].into_iter().chain(live).chain(sizes);
    let rest = rest.chain([Argument::F32(rate), Argument::Key]);
    Some(Launches::new([kernel.with(pointers(3, 1).chain(rest))]))
}
