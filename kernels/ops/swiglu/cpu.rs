//! `swiglu` on the CPU, row by row.

use crate::cpu::isa::dispatch;
use crate::cpu::rows::map_rows;
use crate::cpu::{CpuRun, vector};

pub(super) fn forward(run: &CpuRun<'_>) {
    let (x, y, device) = (run.input::<f32>(0), run.output::<f32>(0), run.device());
    let half = run.output_spec(0).columns();
    map_rows(&device.pool, run.live_input(0), 2 * half, [(y, half)], |rows, [y]| {
        for (row, y) in rows.zip(y.chunks_exact_mut(half)) {
            let (gate, up) = x[row * 2 * half..][..2 * half].split_at(half);
            gated(device.isa, gate, up, y);
        }
    });
}

pub(super) fn gradient(run: &CpuRun<'_>) {
    let (dy, x, device) = (run.input::<f32>(0), run.input::<f32>(1), run.device());
    let (half, dx) = (run.input_spec(0).columns(), run.output::<f32>(0));
    map_rows(&device.pool, run.live_input(0), 3 * half, [(dx, 2 * half)], |rows, [dx]| {
        for (row, dx) in rows.zip(dx.chunks_exact_mut(2 * half)) {
            let (gate, up) = x[row * 2 * half..][..2 * half].split_at(half);
            let (dgate, dup) = dx.split_at_mut(half);
            gated_gradient(device.isa, &dy[row * half..][..half], gate, up, dgate, dup);
        }
    });
}

dispatch! {
    fn gated(gate: &[f32], up: &[f32], y: &mut [f32]) {
        for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
            *y = vector::silu(gate) * up;
        }
    }

    fn gated_gradient(dy: &[f32], gate: &[f32], up: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
        let inputs = dy.iter().zip(gate).zip(up);
        for (((&dy, &gate), &up), (dgate, dup)) in inputs.zip(dgate.iter_mut().zip(dup)) {
            *dgate = dy * up * vector::silu_derivative(gate);
            *dup = dy * vector::silu(gate);
        }
    }
}
