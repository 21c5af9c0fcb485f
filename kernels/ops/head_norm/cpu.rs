//! `head_norm` on the CPU: the rows of `rms_norm`, one per head.

use crate::cpu::CpuRun;
use crate::cpu::rows::{column_sums, map_rows};
use crate::ops::head_norm::HeadNorm;
use crate::ops::rms_norm::cpu::{add_products, normalise, row_gradient};

pub(super) fn forward(run: &CpuRun<'_>, norm: &HeadNorm) {
    let (x, wq, wk) = (run.input::<f32>(0), run.input::<f32>(1), run.input::<f32>(2));
    let (columns, head_dim, normed) = (run.input_spec(0).columns(), wq.len(), norm.normed());
    let outputs = [(run.output::<f32>(0), columns), (run.output::<f32>(1), normed)];
    let device = run.device();
    map_rows(&device.pool, run.live_input(0), columns, outputs, |rows, [y, rstd]| {
        let rows_of_y = y.chunks_exact_mut(columns).zip(rstd.chunks_exact_mut(normed));
        for (row, (y, rstd)) in rows.zip(rows_of_y) {
            let x = &x[row * columns..][..columns];
            for (head, rstd) in rstd.iter_mut().enumerate() {
                let part = head * head_dim..(head + 1) * head_dim;
                let w = if head < norm.heads { wq } else { wk };
                *rstd = normalise(device.isa, &x[part.clone()], w, norm.eps, &mut y[part]);
            }
            y[normed * head_dim..].copy_from_slice(&x[normed * head_dim..]);
        }
    });
}

pub(super) fn input_gradient(run: &CpuRun<'_>, norm: &HeadNorm) {
    let (dy, x) = (run.input::<f32>(0), run.input::<f32>(1));
    let (wq, wk, rstd) = (run.input::<f32>(2), run.input::<f32>(3), run.input::<f32>(4));
    let (columns, head_dim, normed) = (run.input_spec(0).columns(), wq.len(), norm.normed());
    let (device, dx) = (run.device(), run.output::<f32>(0));
    map_rows(&device.pool, run.live_input(0), columns, [(dx, columns)], |rows, [dx]| {
        for (row, dx) in rows.zip(dx.chunks_exact_mut(columns)) {
            let (dy, x) = (&dy[row * columns..][..columns], &x[row * columns..][..columns]);
            for head in 0..normed {
                let part = head * head_dim..(head + 1) * head_dim;
                let w = if head < norm.heads { wq } else { wk };
                let (dy, x, dx) = (&dy[part.clone()], &x[part.clone()], &mut dx[part]);
                row_gradient(device.isa, dy, x, w, rstd[row * normed + head], dx, false);
            }
            dx[normed * head_dim..].copy_from_slice(&dy[normed * head_dim..]);
        }
    });
}

pub(super) fn weight_gradient(run: &CpuRun<'_>, norm: &HeadNorm, keys: bool) {
    let (dy, x, rstd) = (run.input::<f32>(0), run.input::<f32>(1), run.input::<f32>(2));
    let (stride, normed, device) = (run.input_spec(0).columns(), norm.normed(), run.device());
    let (first, heads) = if keys { (norm.heads, norm.kv_heads) } else { (0, norm.heads) };
    let dw = run.output::<f32>(0);
    let (head_dim, vectors) = (dw.len(), run.live_input(0) * heads);
    column_sums(&device.pool, vectors, dw, run.accumulate(0), |vectors, columns, partial| {
        for vector in vectors {
            let (row, head) = (vector / heads, first + vector % heads);
            let at = row * stride + head * head_dim + columns.start;
            let rstd = rstd[row * normed + head];
            add_products(device.isa, &dy[at..], &x[at..], rstd, partial);
        }
    });
}
