//! `grouped_linear` on the CPU: one matrix product per expert, experts in order.

use std::ops::Range;

use crate::cpu::CpuRun;
use crate::cpu::gemm::{Output, Size};

pub(super) fn forward(run: &CpuRun<'_>) {
    let (x, w) = (run.floats(0), run.floats(1));
    let (n, k) = (run.input_spec(1).shape[1], run.input_spec(1).columns());
    let y = run.output::<f32>(0);
    for (expert, rows) in ranges(run.input(2)).enumerate() {
        let size = Size { m: rows.len(), n, k };
        let a = x.from(rows.start * k).rows(k);
        let b = w.from(expert * n * k).transposed(k);
        let c = Output::new(&mut y[rows.start * n..rows.end * n], n, false);
        let [a, b] = [a, b].map(|m| m.rounded(run.matmul()));
        run.device().gemm(size, a, b, c);
    }
}

pub(super) fn input_gradient(run: &CpuRun<'_>) {
    let (dy, w) = (run.floats(0), run.floats(1));
    let (n, k) = (run.input_spec(1).columns(), run.input_spec(0).columns());
    let (dx, accumulate) = (run.output::<f32>(0), run.accumulate(0));
    for (expert, rows) in ranges(run.input(2)).enumerate() {
        let size = Size { m: rows.len(), n, k };
        let a = dy.from(rows.start * k).rows(k);
        let b = w.from(expert * n * k).rows(n);
        let c = Output::new(&mut dx[rows.start * n..rows.end * n], n, accumulate);
        let [a, b] = [a, b].map(|m| m.rounded(run.matmul()));
        run.device().gemm(size, a, b, c);
    }
}

pub(super) fn weight_gradient(run: &CpuRun<'_>) {
    let (dy, x) = (run.floats(0), run.floats(1));
    let (m, n) = (run.input_spec(0).columns(), run.input_spec(1).columns());
    let (dw, accumulate) = (run.output::<f32>(0), run.accumulate(0));
    for (rows, dw) in ranges(run.input(2)).zip(dw.chunks_exact_mut(m * n)) {
        let size = Size { m, n, k: rows.len() };
        let a = dy.from(rows.start * m).transposed(m);
        let b = x.from(rows.start * n).rows(n);
        let [a, b] = [a, b].map(|m| m.rounded(run.matmul()));
        run.device().gemm(size, a, b, Output::new(dw, n, accumulate));
    }
}

/// The rows of each expert.
fn ranges(start: &[i32]) -> impl Iterator<Item = Range<usize>> {
    start.windows(2).map(|edge| edge[0] as usize..edge[1] as usize)
}
