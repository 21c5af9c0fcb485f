//! `slice_columns` on the CPU.

use crate::cpu::rows::map_rows;
use crate::cpu::{CpuRun, vector};

pub(super) fn slice(run: &CpuRun<'_>, start: usize, count: usize) {
    let (columns, rows, device) = (run.input_spec(0).columns(), live_rows(run), run.device());
    if run.accumulate(0) {
        let (x, out) = (run.input::<f32>(0), run.output::<f32>(0));
        map_rows(&device.pool, rows, count, [(out, count)], |rows, [out]| {
            for (row, out) in rows.zip(out.chunks_exact_mut(count)) {
                vector::add_scaled(device.isa, out, 1.0, &x[row * columns + start..][..count]);
            }
        });
        return;
    }
    // Bits, so that integers go the same way.
    let (x, out) = (run.input::<u32>(0), run.output::<u32>(0));
    map_rows(&device.pool, rows, count, [(out, count)], |rows, [out]| {
        for (row, out) in rows.zip(out.chunks_exact_mut(count)) {
            out.copy_from_slice(&x[row * columns + start..][..count]);
        }
    });
}

pub(super) fn gradient(run: &CpuRun<'_>, start: usize, columns: usize) {
    let (count, rows, device) = (run.input_spec(0).columns(), live_rows(run), run.device());
    let accumulate = run.accumulate(0);
    let (dy, dx) = (run.input::<f32>(0), run.output::<f32>(0));
    map_rows(&device.pool, rows, columns, [(dx, columns)], |rows, [dx]| {
        for (row, dx) in rows.zip(dx.chunks_exact_mut(columns)) {
            if !accumulate {
                dx.fill(0.0);
            }
            let dy = &dy[row * count..][..count];
            vector::add_scaled(device.isa, &mut dx[start..start + count], 1.0, dy);
        }
    });
}

/// Live rows of the last dimension of input 0.
fn live_rows(run: &CpuRun<'_>) -> usize {
    let spec = run.input_spec(0);
    match spec.shape.len() {
        1 => 1,
        _ => run.live_input(0) * spec.elements_per_row() / spec.columns(),
    }
}
