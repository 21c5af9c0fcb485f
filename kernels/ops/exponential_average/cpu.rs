//! `exponential_average` on the CPU, by rows of the leading dimension.

use crate::cpu::CpuRun;
use crate::cpu::rows::map_rows;
use crate::ops::exponential_average::ExponentialAverage;

pub(super) fn forward(run: &CpuRun<'_>, op: &ExponentialAverage) {
    let (x, columns) = (run.input::<f32>(0), run.input_spec(0).elements_per_row());
    let (average, accumulate) = (run.output::<f32>(0), run.accumulate(0));
    let rate = 1.0 - op.decay;
    let (pool, live) = (&run.device().pool, run.live_input(0));
    map_rows(pool, live, columns, [(average, columns)], |rows, [average]| {
        let x = &x[rows.start * columns..rows.end * columns];
        for (average, &x) in average.iter_mut().zip(x) {
            *average = if accumulate { rate.mul_add(x - *average, *average) } else { x };
        }
    });
}
