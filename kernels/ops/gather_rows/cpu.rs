//! `gather_rows` on the CPU. The gradient is cut by rows of `x`: each chunk looks for its own
//! numbers, so sums need no atomics and keep the order of `index`.

use crate::cpu::rows::map_rows;
use crate::cpu::{CpuRun, vector};
use crate::shape::Spec;

/// Chunks into which `x` is cut at most; every chunk reads all of `index`.
const CHUNKS_MAX: usize = 64;

/// Elements of `x` that are worth a chunk.
const CHUNK_ELEMENTS: usize = 32 * 1024;

pub(super) fn forward(run: &CpuRun<'_>) {
    // Bits, so that integers go the same way.
    let (x, index) = (run.input::<u32>(0), run.input::<i32>(1));
    let (rows_of_x, columns) = (run.live_input(0), run.input_spec(0).elements_per_row());
    let (live, out) = (run.live_input(1), run.output::<u32>(0));
    map_rows(&run.device().pool, live, columns, [(out, columns)], |rows, [out]| {
        for (row, out) in rows.zip(out.chunks_exact_mut(columns)) {
            match usize::try_from(index[row]) {
                Ok(from) if from < rows_of_x => {
                    out.copy_from_slice(&x[from * columns..][..columns])
                }
                _ => out.fill(0),
            }
        }
    });
}

pub(super) fn gradient(run: &CpuRun<'_>, x: &Spec) {
    let (index, dy) = (&run.input::<i32>(0)[..run.live_input(0)], run.input::<f32>(1));
    let live = |i| usize::try_from(run.input::<i32>(i)[0]).unwrap_or(0).min(x.leading());
    let rows_of_x = if run.inputs() > 2 { live(2) } else { x.leading() };
    let columns = x.elements_per_row();
    let dx = &mut run.output::<f32>(0)[..rows_of_x * columns];
    let rows = (CHUNK_ELEMENTS / columns).max(rows_of_x.div_ceil(CHUNKS_MAX)).max(1);
    let (accumulate, isa) = (run.accumulate(0), run.device().isa);
    run.device().pool.map_chunks(dx, rows * columns, |chunk, dx| {
        if !accumulate {
            dx.fill(0.0);
        }
        let first = chunk * rows;
        let mine = first..first + dx.len() / columns;
        for (m, &to) in index.iter().enumerate() {
            let Ok(to) = usize::try_from(to) else { continue };
            if mine.contains(&to) {
                let row = &mut dx[(to - first) * columns..][..columns];
                vector::add_scaled(isa, row, 1.0, &dy[m * columns..][..columns]);
            }
        }
    });
}
