//! `attention_cached` on the CPU: `attention`'s tiles with a single query, one chunk of work per
//! row and head.

use crate::cpu::CpuRun;
use crate::cpu::gemm::{Matrix, Output, Size, gemm_inline};
use crate::cpu::pool::Disjoint;
use crate::ops::attention::HEAD_DIM_MAX;
use crate::ops::attention::cpu::{KEYS, Row, softmax_tile};
use crate::ops::attention::tiles::tiles;
use crate::ops::attention_cached::CacheSpec;

pub(super) fn append(run: &CpuRun<'_>, spec: &CacheSpec, first: usize) {
    let (qkv, positions) = (run.input::<f32>(0), run.input::<i32>(1));
    let (stride, shared) = (run.input_spec(0).columns(), spec.shared());
    let sequences = run.input::<i32>(2);
    let cache = run.output::<f32>(0);
    for (row, &position) in positions[..run.live_input(0)].iter().enumerate() {
        let Ok(position) = usize::try_from(position) else { continue };
        let Some(sequence) = spec.sequence(sequences[row]) else { continue };
        if position < spec.positions {
            let source = &qkv[row * stride + first..][..shared];
            cache[sequence + position * shared..][..shared].copy_from_slice(source);
        }
    }
}

pub(super) fn attend(run: &CpuRun<'_>, spec: &CacheSpec) {
    let (qkv, positions) = (run.input::<f32>(0), run.input::<i32>(1));
    let sequences = run.input::<i32>(2);
    let (keys, values) = (run.input::<f32>(3), run.input::<f32>(4));
    let (stride, geometry) = (run.input_spec(0).columns(), spec.geometry());
    let (device, out) = (run.device(), Disjoint::new(run.output::<f32>(0)));
    let head_dim = spec.head_dim;
    device.pool.run(run.live_input(0) * spec.heads, &|chunk, worker| {
        let (row, head) = (chunk / spec.heads, chunk % spec.heads);
        // SAFETY: each head of a row belongs to one chunk.
        let out = unsafe { out.range(chunk * head_dim..(chunk + 1) * head_dim) };
        let Ok(position) = usize::try_from(positions[row]) else { return out.fill(0.0) };
        let sequence = spec.sequence(sequences[row]).filter(|_| position < spec.positions);
        let Some(sequence) = sequence else { return out.fill(f32::NAN) };
        let first = sequence + head / geometry.group() * head_dim;
        let (keys, values) = (&keys[first..], &values[first..]);
        let q = Matrix::rows(&qkv[row * stride + head * head_dim..], stride);
        let (mut scores, mut sums) = ([0.0; KEYS], [0.0; HEAD_DIM_MAX]);
        let (sums, mut state) = (&mut sums[..head_dim], [Row::EMPTY]);
        let mut panels = device.scratch.panels(worker);
        let visible = geometry.visible(position, position + 1);
        for tile in tiles(visible.clone(), KEYS) {
            let (at, count) = (tile.start * spec.shared(), tile.len());
            let k = Matrix::transposed(&keys[at..], spec.shared());
            let size = Size { m: 1, n: count, k: head_dim };
            gemm_inline(&mut panels, size, q, k, Output::new(&mut scores, KEYS, false));
            scores[..visible.start.saturating_sub(tile.start)].fill(f32::NEG_INFINITY);
            let scale = geometry.scale();
            softmax_tile(device.isa, &mut scores, count, &[count], scale, &mut state, sums);
            let v = Matrix::rows(&values[at..], spec.shared());
            let size = Size { m: 1, n: head_dim, k: count };
            let output = Output::new(sums, head_dim, true);
            gemm_inline(&mut panels, size, Matrix::rows(&scores, KEYS), v, output);
        }
        state[0].finish(sums, out);
    });
}
