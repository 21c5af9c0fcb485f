//! What `grouped_linear` asks of a GPU: one launch for each product, whatever rows experts have.

use crate::dtype::DType;
use crate::launch::{Argument, Grid, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;
use crate::ops::linear::cuda::Tile;

/// `x, w, start -> y`.
pub(super) fn forward(io: &Io) -> Option<Launches> {
    let [_, n, k] = io.inputs[1].shape[..] else { return None };
    by_rows(io, "forward", [n, k], false)
}

/// `dy, w, start -> dx`.
pub(super) fn input_gradient(io: &Io) -> Option<Launches> {
    let [_, k, n] = io.inputs[1].shape[..] else { return None };
    by_rows(io, "input", [n, k], true)
}

/// Every expert's rows times its weights. Of tiles there are as many as rows need that stand close,
/// and one more for each expert, since its last one need not be full.
fn by_rows(io: &Io, product: &str, [n, k]: [usize; 2], deep_rows: bool) -> Option<Launches> {
    let dtype = element([&io.inputs[0], &io.inputs[1], &io.outputs[0]])?;
    let (rows, experts) = (io.inputs[0].leading(), io.inputs[1].leading());
    let tile = Tile::new(dtype, [rows / experts.max(1), n], [false, deep_rows]);
    let tiles = (rows / tile.side + experts) * n.div_ceil(tile.side);
    let sizes = [experts, n, k].map(|size| Argument::U32(size as u32));
    let about = sizes.into_iter().chain([Argument::Accumulate(0)]);
    Some(one(&tile, product, [tiles, 1, 1], about))
}

/// `dy, x, start -> dw`.
pub(super) fn weight_gradient(io: &Io) -> Option<Launches> {
    let dtype = element(&io.inputs[..2])?;
    let [m, n] = [0, 1].map(|i| io.inputs[i].columns());
    let tile = Tile::new(dtype, [m, n], [true, true]);
    let [across, down] = [m, n].map(|size| size.div_ceil(tile.side));
    let sizes = [m, n].map(|size| Argument::U32(size as u32));
    let about = sizes.into_iter().chain([Argument::Accumulate(0)]);
    let experts = io.inputs[2].leading() - 1;
    (io.outputs[0].dtype == DType::F32)
        .then(|| one(&tile, "weight", [across, down, experts], about))
}

fn one(
    tile: &Tile,
    product: &str,
    blocks: [usize; 3],
    about: impl Iterator<Item = Argument>,
) -> Launches {
    let function = format!("grouped_{}_{product}", tile.name);
    let kernel = Kernel {
        grid: Grid::Fixed(blocks.map(|size| size.max(1) as u32)),
        block: tile.block,
        shared_bytes: tile.shared_bytes,
        ..Kernel::over_rows("grouped_linear", function, Memory::Input(0), 1)
    };
    Launches::new([kernel.with(pointers(3, 1).chain(about))])
}
