//! `l2_normalize` on the CPU, row by row.

use crate::cpu::rows::map_rows;
use crate::cpu::{CpuRun, vector};
use crate::ops::l2_normalize::L2Normalize;

pub(super) fn forward(run: &CpuRun<'_>, op: &L2Normalize) {
    let (x, columns, device) = (run.input::<f32>(0), run.input_spec(0).columns(), run.device());
    let outputs = [(run.output::<f32>(0), columns), (run.output::<f32>(1), 1)];
    map_rows(&device.pool, run.live_input(0), columns, outputs, |rows, [y, norms]| {
        for ((row, y), norm) in rows.zip(y.chunks_exact_mut(columns)).zip(norms) {
            let x = &x[row * columns..][..columns];
            let length = vector::sum_of_squares_f64(device.isa, x).sqrt() as f32;
            *norm = if length < op.eps { op.eps } else { length };
            y.iter_mut().zip(x).for_each(|(y, x)| *y = x / *norm);
        }
    });
}

pub(super) fn gradient(run: &CpuRun<'_>, eps: f32) {
    let (dy, x, norms) = (run.input::<f32>(0), run.input::<f32>(1), run.input::<f32>(2));
    let (columns, device) = (run.input_spec(1).columns(), run.device());
    let (dx, accumulate) = (run.output::<f32>(0), run.accumulate(0));
    map_rows(&device.pool, run.live_input(1), columns, [(dx, columns)], |rows, [dx]| {
        for (row, dx) in rows.zip(dx.chunks_exact_mut(columns)) {
            let (dy, x) = (&dy[row * columns..][..columns], &x[row * columns..][..columns]);
            let (norm, inner) = (norms[row], vector::dot_f64(device.isa, dy, x));
            let along = if norm > eps { (inner / f64::from(norm).powi(2)) as f32 } else { 0.0 };
            for (dx, (dy, x)) in dx.iter_mut().zip(dy.iter().zip(x)) {
                let term = (dy - along * x) / norm;
                *dx = if accumulate { *dx + term } else { term };
            }
        }
    });
}
