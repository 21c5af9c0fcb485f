//! `layer_norm` on the CPU: the variance is summed over centred values, so a large mean costs no
//! more than its own rounding.

use crate::cpu::CpuRun;
use crate::cpu::isa::dispatch;
use crate::cpu::rows::{column_sums, map_rows, sums};

pub(super) fn forward(run: &CpuRun<'_>, eps: f32) {
    let (x, w, b) = (run.input::<f32>(0), run.input::<f32>(1), run.input::<f32>(2));
    let columns = w.len();
    let outputs =
        [(run.output::<f32>(0), columns), (run.output::<f32>(1), 1), (run.output::<f32>(2), 1)];
    let device = run.device();
    map_rows(&device.pool, run.live_input(0), columns, outputs, |rows, [y, mean, rstd]| {
        for (i, row) in rows.enumerate() {
            let x = &x[row * columns..][..columns];
            let y = &mut y[i * columns..][..columns];
            (mean[i], rstd[i]) = normalise(device.isa, x, w, b, eps, y);
        }
    });
}

pub(super) fn input_gradient(run: &CpuRun<'_>) {
    let (dy, x, w) = (run.input::<f32>(0), run.input::<f32>(1), run.input::<f32>(2));
    let (mean, rstd) = (run.input::<f32>(3), run.input::<f32>(4));
    let (columns, accumulate) = (w.len(), run.accumulate(0));
    let (dx, device) = (run.output::<f32>(0), run.device());
    map_rows(&device.pool, run.live_input(0), columns, [(dx, columns)], |rows, [dx]| {
        for (i, row) in rows.enumerate() {
            let (dy, x) = (&dy[row * columns..][..columns], &x[row * columns..][..columns]);
            let dx = &mut dx[i * columns..][..columns];
            row_gradient(device.isa, dy, x, w, [mean[row], rstd[row]], dx, accumulate);
        }
    });
}

pub(super) fn weight_gradient(run: &CpuRun<'_>) {
    let (dy, x) = (run.input::<f32>(0), run.input::<f32>(1));
    let (mean, rstd) = (run.input::<f32>(2), run.input::<f32>(3));
    let (dw, device, live) = (run.output::<f32>(0), run.device(), run.live_input(0));
    let stride = dw.len();
    column_sums(&device.pool, live, dw, run.accumulate(0), |rows, columns, partial| {
        let from = rows.start * stride + columns.start;
        let saved = [&mean[rows.clone()], &rstd[rows]];
        add_products(device.isa, &dy[from..], &x[from..], saved, stride, partial);
    });
}

dispatch! {
    /// One row; returns its mean and rstd.
    pub(crate) fn normalise(
        x: &[f32],
        w: &[f32],
        b: &[f32],
        eps: f32,
        y: &mut [f32],
    ) -> (f32, f32) {
        let count = x.len() as f32;
        let [sum] = sums(x, x, x, |x, _, _| [x]);
        let mean = sum / count;
        let [squares] = sums(x, x, x, |x, _, _| [(x - mean) * (x - mean)]);
        let rstd = 1.0 / (squares / count + eps).sqrt();
        for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(w).zip(b) {
            *y = ((x - mean) * rstd).mul_add(w, b);
        }
        (mean, rstd)
    }

    /// `dx = rstd (g - mean(g) - x̂ mean(g x̂))` with `g = dy w`, `x̂ = (x - mean) rstd`.
    fn row_gradient(
        dy: &[f32],
        x: &[f32],
        w: &[f32],
        saved: [f32; 2],
        dx: &mut [f32],
        accumulate: bool,
    ) {
        let [mean, rstd] = saved;
        let count = x.len() as f32;
        let [sum, product] = sums(dy, x, w, |dy, x, w| {
            let g = dy * w;
            [g, g * ((x - mean) * rstd)]
        });
        let (sum, product) = (sum / count, product / count);
        let value = |dy: f32, x: f32, w: f32| {
            let centred = (x - mean) * rstd;
            rstd * (-centred).mul_add(product, dy.mul_add(w, -sum))
        };
        let terms = dx.iter_mut().zip(dy.iter().zip(x).zip(w));
        if accumulate {
            terms.for_each(|(dx, ((&dy, &x), &w))| *dx += value(dy, x, w));
        } else {
            terms.for_each(|(dx, ((&dy, &x), &w))| *dx = value(dy, x, w));
        }
    }

    /// Adds `dy (x - mean) rstd` of rows that are `stride` apart to `partial`.
    fn add_products(
        dy: &[f32],
        x: &[f32],
        saved: [&[f32]; 2],
        stride: usize,
        partial: &mut [f32],
    ) {
        let columns = partial.len();
        for (row, (&mean, &rstd)) in saved[0].iter().zip(saved[1]).enumerate() {
            let (dy, x) = (&dy[row * stride..][..columns], &x[row * stride..][..columns]);
            for ((p, &dy), &x) in partial.iter_mut().zip(dy).zip(x) {
                *p = dy.mul_add((x - mean) * rstd, *p);
            }
        }
    }
}
