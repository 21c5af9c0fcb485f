//! `concat_columns` on the CPU: one pass over the rows for each operand.

use crate::cpu::CpuRun;
use crate::cpu::rows::map_rows;

pub(super) fn forward(run: &CpuRun<'_>) {
    let spec = run.input_spec(0);
    let columns: usize = (0..run.inputs()).map(|i| run.input_spec(i).columns()).sum();
    let live = (0..run.inputs()).map(|i| run.live_input(i)).min().unwrap_or(0);
    let rows = match spec.shape.len() {
        1 => 1,
        _ => live * spec.elements_per_row() / spec.columns(),
    };
    // Bits, so that integers go the same way.
    let (out, pool) = (run.output::<u32>(0), &run.device().pool);
    let mut start = 0;
    for i in 0..run.inputs() {
        let (x, count) = (run.input::<u32>(i), run.input_spec(i).columns());
        map_rows(pool, rows, count, [(&mut *out, columns)], |rows, [out]| {
            for (row, out) in rows.zip(out.chunks_exact_mut(columns)) {
                out[start..start + count].copy_from_slice(&x[row * count..][..count]);
            }
        });
        start += count;
    }
}
