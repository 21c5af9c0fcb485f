//! What `group_by_expert` asks of a GPU: counts of units of pairs, the first rows of those, and the
//! rows of all pairs. No count comes to the host.

use crate::launch::{Argument, Grid, Kernel, Launches, Memory, pointers};
use crate::ops::Io;
use crate::ops::gather_rows::cuda::extent;
use crate::ops::group_by_expert::GroupByExpert;

/// Pairs of a unit, units of a block, and experts at most: as group_by_expert.cu has them.
const UNIT: usize = 512;
const UNITS: usize = 4;
const EXPERTS: usize = 1024;

pub(super) fn sort(io: &Io, op: &GroupByExpert) -> Option<Launches> {
    if op.experts == 0 || op.experts > EXPERTS {
        return None;
    }
    let (expert, k) = (Memory::Input(0), io.inputs[0].columns());
    let units = (io.inputs[0].leading() * k).div_ceil(UNIT).max(1);
    let bytes = units * op.experts * size_of::<u32>();
    let counts = Argument::Pointer(Memory::Workspace { offset: 0, bytes });
    let kernel = |function: &str, blocks: usize, block: u32| Kernel {
        grid: Grid::Fixed([blocks as u32, 1, 1]),
        block,
        ..Kernel::over_rows("group_by_expert", function.to_string(), expert, 1)
    };
    let sizes = [k, op.experts].map(|size| Argument::U32(size as u32));
    let about = extent(io, expert).into_iter().chain(sizes);
    let capacity = Argument::U32(op.capacity as u32);
    let [row_of, pair_of, start, count] =
        [0, 1, 2, 3].map(|i| Argument::Pointer(Memory::Output(i)));
    let (of_units, block) = (units.div_ceil(UNITS), 32 * UNITS as u32);
    let list = [
        kernel("group_count", of_units, block)
            .with(pointers(1, 0).chain([counts]).chain(about.clone())),
        kernel("group_scan", 1, 1024).with(
            [counts, start, count, Argument::Overflow]
                .into_iter()
                .chain(about.clone())
                .chain([capacity]),
        ),
        kernel("group_place", of_units, block)
            .with(pointers(1, 0).chain([counts, row_of, pair_of]).chain(about).chain([capacity])),
    ];
    Some(Launches { workspace_bytes: bytes, ..Launches::new(list) })
}
