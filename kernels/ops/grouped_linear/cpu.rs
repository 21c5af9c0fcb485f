//! `grouped_linear` on the CPU: one matrix product per expert, experts in order.

use std::ops::Range;

use crate::cpu::CpuRun;
use crate::cpu::gemm::{Matrix, Output, Size};

pub(super) fn forward(run: &CpuRun<'_>) {
    let (x, w) = (run.input::<f32>(0), run.input::<f32>(1));
    let (n, k) = (run.input_spec(1).shape[1], run.input_spec(1).columns());
    let y = run.output::<f32>(0);
    for (expert, rows) in ranges(run.input(2)).enumerate() {
        let size = Size { m: rows.len(), n, k };
        let a = Matrix::rows(&x[rows.start * k..rows.end * k], k);
        let b = Matrix::transposed(&w[expert * n * k..][..n * k], k);
        let c = Output::new(&mut y[rows.start * n..rows.end * n], n, false);
        let [a, b] = [a, b].map(|m| m.rounded(run.matmul()));
        run.device().gemm(size, a, b, c);
    }
}

pub(super) fn input_gradient(run: &CpuRun<'_>) {
    let (dy, w) = (run.input::<f32>(0), run.input::<f32>(1));
    let (n, k) = (run.input_spec(1).columns(), run.input_spec(0).columns());
    let (dx, accumulate) = (run.output::<f32>(0), run.accumulate(0));
    for (expert, rows) in ranges(run.input(2)).enumerate() {
        let size = Size { m: rows.len(), n, k };
        let a = Matrix::rows(&dy[rows.start * k..rows.end * k], k);
        let b = Matrix::rows(&w[expert * n * k..][..n * k], n);
        let c = Output::new(&mut dx[rows.start * n..rows.end * n], n, accumulate);
        let [a, b] = [a, b].map(|m| m.rounded(run.matmul()));
        run.device().gemm(size, a, b, c);
    }
}

pub(super) fn weight_gradient(run: &CpuRun<'_>) {
    let (dy, x) = (run.input::<f32>(0), run.input::<f32>(1));
    let (m, n) = (run.input_spec(0).columns(), run.input_spec(1).columns());
    let (dw, accumulate) = (run.output::<f32>(0), run.accumulate(0));
    for (rows, dw) in ranges(run.input(2)).zip(dw.chunks_exact_mut(m * n)) {
        let size = Size { m, n, k: rows.len() };
        let a = Matrix::transposed(&dy[rows.start * m..rows.end * m], m);
        let b = Matrix::rows(&x[rows.start * n..rows.end * n], n);
        let [a, b] = [a, b].map(|m| m.rounded(run.matmul()));
        run.device().gemm(size, a, b, Output::new(dw, n, accumulate));
    }
}

/// The rows of each expert.
fn ranges(start: &[i32]) -> impl Iterator<Item = Range<usize>> {
    start.windows(2).map(|edge| edge[0] as usize..edge[1] as usize)
}
