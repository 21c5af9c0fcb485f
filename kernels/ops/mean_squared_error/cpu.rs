//! `mean_squared_error` on the CPU: a term for each row, then their sum in order.

use crate::cpu::CpuRun;
use crate::cpu::rows::map_rows;
use crate::cpu::softmax::write_loss;

pub(super) fn forward(run: &CpuRun<'_>) {
    let (a, b) = (run.input::<f32>(0), run.input::<f32>(1));
    let columns = run.input_spec(0).elements_per_row();
    let live = run.live_input(0).min(run.live_input(1));
    let terms = &mut run.workspace::<f64>()[..live];
    let pool = &run.device().pool;
    map_rows(pool, live, columns, [(&mut *terms, 1)], |rows, [terms]| {
        for (row, term) in rows.zip(terms) {
            let (a, b) = (&a[row * columns..][..columns], &b[row * columns..][..columns]);
            let square = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
            *term = a.iter().zip(b).map(square).sum();
        }
    });
    write_loss(run, run.input::<f32>(2)[0], terms.iter().sum());
}

pub(super) fn gradient(run: &CpuRun<'_>) {
    let (a, b) = (run.input::<f32>(0), run.input::<f32>(1));
    let factor = 2.0 * run.input::<f32>(2)[0] * run.input::<f32>(3)[0];
    let columns = run.input_spec(0).elements_per_row();
    let live = run.live_input(0).min(run.live_input(1));
    let (da, accumulate) = (run.output::<f32>(0), run.accumulate(0));
    map_rows(&run.device().pool, live, columns, [(da, columns)], |rows, [da]| {
        let span = rows.start * columns..rows.end * columns;
        for (da, (a, b)) in da.iter_mut().zip(a[span.clone()].iter().zip(&b[span])) {
            let term = factor * (a - b);
            *da = if accumulate { *da + term } else { term };
        }
    });
}
