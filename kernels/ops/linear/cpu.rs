//! The products of `linear` on the CPU.

use crate::cpu::CpuRun;
use crate::cpu::gemm::{Block, Finish, Output, Size, gemm_with};
use crate::cpu::pool::Disjoint;
use crate::cpu::vector;
use crate::cpu::widen::round_trip;
use crate::ops::activation;
use crate::ops::linear::fused::Activated;

/// Elements of a row that are changed at a time.
const PIECE: usize = 256;

/// `y = x wᵀ + b` for the operands `x, w, b?`, and then `next` on each finished part of it.
pub(super) fn product(run: &CpuRun<'_>, next: &Finish<'_>) {
    let [n, k] = [run.input_spec(1).leading(), run.input_spec(1).columns()];
    let (x, w) = (run.floats(0), run.floats(1));
    let bias = (run.inputs() > 2).then(|| run.input::<f32>(2));
    let (device, size) = (run.device(), Size { m: run.live_input(0), n, k });
    let [a, b] = [x.rows(k), w.transposed(k)].map(|m| m.rounded(run.matmul()));
    let c = Output::new(run.output(0), n, false);
    gemm_with(&device.pool, &device.scratch, size, a, b, c, &|mut block: Block<'_>| {
        if let Some(bias) = bias {
            for row in 0..block.rows() {
                let first = block.first_column;
                let y = block.row(row);
                vector::add_scaled(device.isa, y, 1.0, &bias[first..first + y.len()]);
            }
        }
        next(block);
    });
}

/// `y = f(z)` with `z = x wᵀ + b` as it would be stored, and z itself if it is kept.
pub(super) fn activated(run: &CpuRun<'_>, op: &Activated) {
    let (device, n) = (run.device(), run.output_spec(0).columns());
    let dtype = run.output_spec(0).dtype;
    let kept = Disjoint::new(if op.keeps { run.output::<f32>(1) } else { &mut [] });
    product(run, &|mut block: Block<'_>| {
        let mut z = [0.0; PIECE];
        for row in 0..block.rows() {
            let first = (block.first_row + row) * n + block.first_column;
            for (piece, y) in block.row(row).chunks_mut(PIECE).enumerate() {
                let (z, at) = (&mut z[..y.len()], first + piece * PIECE);
                z.copy_from_slice(y);
                round_trip(device, dtype, z);
                if op.keeps {
                    // SAFETY: blocks are disjoint parts of the product.
                    unsafe { kept.range(at..at + z.len()) }.copy_from_slice(z);
                }
                activation::cpu::value(device.isa, op.function, z, y);
            }
        }
    });
}

/// `dx = dy w` for the operands `dy, w`.
pub(super) fn input_gradient(run: &CpuRun<'_>) {
    let [k, n] = [run.input_spec(1).leading(), run.input_spec(1).columns()];
    let (dy, w) = (run.floats(0), run.floats(1));
    let dx = Output::new(run.output::<f32>(0), n, run.accumulate(0));
    let size = Size { m: run.live_input(0), n, k };
    let [a, b] = [dy.rows(k), w.rows(n)].map(|m| m.rounded(run.matmul()));
    run.device().gemm(size, a, b, dx);
}

/// `dw = dyᵀ x` for the operands `dy, x`.
pub(super) fn weight_gradient(run: &CpuRun<'_>) {
    let [m, n] = [run.input_spec(0).columns(), run.input_spec(1).columns()];
    let (dy, x) = (run.floats(0), run.floats(1));
    let dw = Output::new(run.output::<f32>(0), n, run.accumulate(0));
    let size = Size { m, n, k: run.live_input(0) };
    let [a, b] = [dy.transposed(m), x.rows(n)].map(|m| m.rounded(run.matmul()));
    run.device().gemm(size, a, b, dw);
}
