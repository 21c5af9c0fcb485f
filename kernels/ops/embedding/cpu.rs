//! `embedding` on the CPU. The gradient is cut by rows of the table: each chunk looks for its own
//! tokens, so sums need no atomics and keep the order of rows.

use crate::cpu::gemm::copy;
use crate::cpu::rows::map_rows;
use crate::cpu::{CpuRun, vector};

/// Chunks into which the table is cut at most; every chunk reads all tokens.
const CHUNKS_MAX: usize = 64;

/// Elements of the table that are worth a chunk.
const CHUNK_ELEMENTS: usize = 32 * 1024;

pub(super) fn forward(run: &CpuRun<'_>) {
    let (tokens, table) = (run.input::<i32>(0), run.floats(1));
    let columns = run.input_spec(1).columns();
    let rows_of_table = run.input_spec(1).leading();
    let out = run.output::<f32>(0);
    let (live, isa) = (run.live_input(0), run.device().isa);
    map_rows(&run.device().pool, live, columns, [(out, columns)], |rows, [out]| {
        for (row, out) in rows.zip(out.chunks_exact_mut(columns)) {
            match usize::try_from(tokens[row]) {
                Ok(token) if token < rows_of_table => {
                    copy(isa, table.from(token * columns), out);
                }
                _ => out.fill(f32::NAN),
            }
        }
    });
}

pub(super) fn gradient(run: &CpuRun<'_>) {
    let (tokens, dy) = (&run.input::<i32>(0)[..run.live_input(0)], run.input::<f32>(1));
    let columns = run.input_spec(1).columns();
    let table = run.output::<f32>(0);
    if columns == 0 {
        return;
    }
    let rows_of_table = table.len() / columns;
    let rows = (CHUNK_ELEMENTS / columns).max(rows_of_table.div_ceil(CHUNKS_MAX)).max(1);
    let (accumulate, isa) = (run.accumulate(0), run.device().isa);
    run.device().pool.map_chunks(table, rows * columns, |chunk, table| {
        if !accumulate {
            table.fill(0.0);
        }
        let first = chunk * rows;
        let mine = first..first + table.len() / columns;
        for (n, &token) in tokens.iter().enumerate() {
            let Ok(token) = usize::try_from(token) else { continue };
            if mine.contains(&token) {
                let row = &mut table[(token - first) * columns..][..columns];
                vector::add_scaled(isa, row, 1.0, &dy[n * columns..][..columns]);
            }
        }
    });
}
