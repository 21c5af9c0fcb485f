//! `dispatch` on the CPU, row by row.

use crate::cpu::CpuRun;
use crate::cpu::rows::map_rows;

pub(super) fn forward(run: &CpuRun<'_>) {
    let (x, pair_of, k) = (run.input::<f32>(0), run.input::<i32>(1), run.input_spec(2).columns());
    let columns = run.input_spec(0).columns();
    let (live, out) = (run.live_input(1), run.output::<f32>(0));
    map_rows(&run.device().pool, live, columns, [(out, columns)], |rows, [out]| {
        for (row, out) in rows.zip(out.chunks_exact_mut(columns)) {
            let token = pair_of[row] as usize / k;
            out.copy_from_slice(&x[token * columns..][..columns]);
        }
    });
}
