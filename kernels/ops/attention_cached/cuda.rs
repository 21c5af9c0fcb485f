//! What `attention_cached` asks of a GPU: a block for some rows; over the cache one for each row
//! and head.

use crate::launch::{Argument, Grid, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;
use crate::ops::attention_cached::CacheSpec;
use crate::ops::gather_rows::cuda::extent;

/// Threads of a block over the cache: `WARPS` of attention_cached.cu.
const THREADS: u32 = 128;

/// `Caches` of attention_cached.cu.
fn table(io: &Io, spec: &CacheSpec) -> Vec<u64> {
    let geometry = spec.geometry();
    let window = spec.window.map_or(u64::from(u32::MAX), |window| window as u64);
    let scale = u64::from(geometry.scale().to_bits());
    let sizes = [spec.heads, spec.kv_heads, spec.head_dim, spec.sequences, spec.positions];
    let stride = io.inputs[0].columns() as u64;
    let sizes = sizes.map(|size| size as u64).into_iter();
    sizes.chain([window.min(u64::from(u32::MAX)), scale, stride]).collect()
}

/// Columns `first..` of each row to the cache.
pub(super) fn append(io: &Io, spec: &CacheSpec, first: usize) -> Option<Launches> {
    let dtype = element([&io.inputs[0], &io.outputs[0]])?;
    let (function, rows) = (format!("cache_append_{dtype}"), Memory::Input(0));
    let mut kernel = Kernel::over_elements("attention_cached", function, rows, spec.shared());
    kernel.table = table(io, spec);
    let rest = kernel.rows(io).into_iter().chain([Argument::U32(first as u32)]);
    Some(Launches::new([kernel.with(pointers(3, 1).chain(rest))]))
}

pub(super) fn attend(io: &Io, spec: &CacheSpec) -> Option<Launches> {
    let floats = [&io.inputs[0], &io.inputs[3], &io.inputs[4], &io.outputs[0]];
    let (dtype, rows) = (element(floats)?, Memory::Input(0));
    let function = format!("attention_over_cache_{dtype}");
    let kernel = Kernel {
        grid: Grid::Fixed([io.inputs[0].leading().max(1) as u32, spec.heads as u32, 1]),
        block: THREADS,
        table: table(io, spec),
        ..Kernel::over_rows("attention_cached", function, rows, 1)
    };
    Some(Launches::new([kernel.with(pointers(5, 1).chain(extent(io, rows)))]))
}
