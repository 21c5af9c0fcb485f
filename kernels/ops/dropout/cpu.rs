//! `dropout` on the CPU, row by row.

use crate::cpu::CpuRun;
use crate::cpu::rows::map_rows;
use crate::ops::dropout::Dropout;

pub(super) fn forward(run: &CpuRun<'_>, op: &Dropout) {
    let (x, columns) = (run.input::<f32>(0), run.input_spec(0).columns());
    let (random, step, first) = (run.random(), run.step(), run.first_sample());
    let (rate, factor) = (op.rate, 1.0 / (1.0 - op.rate));
    let (pool, out) = (&run.device().pool, run.output::<f32>(0));
    map_rows(pool, run.live_input(0), columns, [(out, columns)], |rows, [out]| {
        for (row, out) in rows.zip(out.chunks_exact_mut(columns)) {
            let sample = first + (row / op.rows_per_sample) as u64;
            let element = (row % op.rows_per_sample * columns) as u64;
            random.fill_uniform(step, sample, element, out);
            for (out, &x) in out.iter_mut().zip(&x[row * columns..]) {
                *out = if *out >= rate { x * factor } else { 0.0 };
            }
        }
    });
}
