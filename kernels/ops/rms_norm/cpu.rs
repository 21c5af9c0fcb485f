//! `rms_norm` on the CPU, row by row; `head_norm` uses the same rows.

use crate::cpu::CpuRun;
use crate::cpu::isa::dispatch;
use crate::cpu::rows::{column_sums, map_rows, sums};

pub(super) fn forward(run: &CpuRun<'_>, eps: f32) {
    let (x, w) = (run.input::<f32>(0), run.input::<f32>(1));
    let (columns, device) = (w.len(), run.device());
    let outputs = [(run.output::<f32>(0), columns), (run.output::<f32>(1), 1)];
    map_rows(&device.pool, run.live_input(0), columns, outputs, |rows, [y, rstd]| {
        for (i, row) in rows.enumerate() {
            let x = &x[row * columns..][..columns];
            rstd[i] = normalise(device.isa, x, w, eps, &mut y[i * columns..][..columns]);
        }
    });
}

pub(super) fn input_gradient(run: &CpuRun<'_>) {
    let (dy, x, w) = (run.input::<f32>(0), run.input::<f32>(1), run.input::<f32>(2));
    let (rstd, accumulate) = (run.input::<f32>(3), run.accumulate(0));
    let (columns, device, dx) = (w.len(), run.device(), run.output::<f32>(0));
    map_rows(&device.pool, run.live_input(0), columns, [(dx, columns)], |rows, [dx]| {
        for (i, row) in rows.enumerate() {
            let (dy, x) = (&dy[row * columns..][..columns], &x[row * columns..][..columns]);
            let dx = &mut dx[i * columns..][..columns];
            row_gradient(device.isa, dy, x, w, rstd[row], dx, accumulate);
        }
    });
}

pub(super) fn weight_gradient(run: &CpuRun<'_>) {
    let (dy, x, rstd) = (run.input::<f32>(0), run.input::<f32>(1), run.input::<f32>(2));
    let (dw, device, live) = (run.output::<f32>(0), run.device(), run.live_input(0));
    let stride = dw.len();
    column_sums(&device.pool, live, dw, run.accumulate(0), |rows, columns, partial| {
        let from = rows.start * stride + columns.start;
        add_rows(device.isa, &dy[from..], &x[from..], &rstd[rows], stride, partial);
    });
}

dispatch! {
    /// One row; returns its rstd.
    pub(crate) fn normalise(x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) -> f32 {
        let [squares] = sums(x, x, x, |x, _, _| [x * x]);
        let rstd = 1.0 / (squares / x.len() as f32 + eps).sqrt();
        for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
            *y = x * rstd * w;
        }
        rstd
    }

    /// `dx = rstd (g - x̂ mean(g x̂))` with `g = dy w`, `x̂ = x rstd`.
    pub(crate) fn row_gradient(
        dy: &[f32],
        x: &[f32],
        w: &[f32],
        rstd: f32,
        dx: &mut [f32],
        accumulate: bool,
    ) {
        let [product] = sums(dy, x, w, |dy, x, w| [dy * w * (x * rstd)]);
        let product = product / x.len() as f32;
        let value = |dy: f32, x: f32, w: f32| rstd * (-(x * rstd)).mul_add(product, dy * w);
        let terms = dx.iter_mut().zip(dy.iter().zip(x).zip(w));
        if accumulate {
            terms.for_each(|(dx, ((&dy, &x), &w))| *dx += value(dy, x, w));
        } else {
            terms.for_each(|(dx, ((&dy, &x), &w))| *dx = value(dy, x, w));
        }
    }

    /// Adds `dy x rstd` of rows that are `stride` apart to `partial`.
    fn add_rows(dy: &[f32], x: &[f32], rstd: &[f32], stride: usize, partial: &mut [f32]) {
        let columns = partial.len();
        for (row, &rstd) in rstd.iter().enumerate() {
            let (dy, x) = (&dy[row * stride..][..columns], &x[row * stride..][..columns]);
            for ((p, &dy), &x) in partial.iter_mut().zip(dy).zip(x) {
                *p = dy.mul_add(x * rstd, *p);
            }
        }
    }

    /// Likewise of one row.
    pub(crate) fn add_products(dy: &[f32], x: &[f32], rstd: f32, partial: &mut [f32]) {
        let columns = partial.len();
        for ((p, &dy), &x) in partial.iter_mut().zip(&dy[..columns]).zip(&x[..columns]) {
            *p = dy.mul_add(x * rstd, *p);
        }
    }
}
