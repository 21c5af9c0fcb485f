//! `combine` on the CPU: tokens, or rows, in parallel; a token's choices in order.

use crate::cpu::rows::map_rows;
use crate::cpu::{CpuRun, vector};

/// Sums of rows (input 0) by `row_of` (input 1).
pub(super) fn sum(run: &CpuRun<'_>, weight: Option<&[f32]>) {
    let (values, row_of) = (run.input::<f32>(0), run.input::<i32>(1));
    let (columns, k) = (run.input_spec(0).columns(), run.input_spec(1).columns());
    let (live, accumulate, device) = (run.live_input(1), run.accumulate(0), run.device());
    let out = run.output::<f32>(0);
    map_rows(&device.pool, live, k * columns, [(out, columns)], |tokens, [out]| {
        for (token, out) in tokens.zip(out.chunks_exact_mut(columns)) {
            if !accumulate {
                out.fill(0.0);
            }
            for pair in token * k..(token + 1) * k {
                let Ok(row) = usize::try_from(row_of[pair]) else { continue };
                let factor = weight.map_or(1.0, |weight| weight[pair]);
                vector::add_scaled(device.isa, out, factor, &values[row * columns..][..columns]);
            }
        }
    });
}

pub(super) fn rows_gradient(run: &CpuRun<'_>) {
    let (dy, pair_of, weight) = (run.input::<f32>(0), run.input::<i32>(1), run.input::<f32>(2));
    let (columns, k) = (run.input_spec(0).columns(), run.input_spec(2).columns());
    let (live, accumulate, device) = (run.live_input(1), run.accumulate(0), run.device());
    let out = run.output::<f32>(0);
    map_rows(&device.pool, live, columns, [(out, columns)], |rows, [out]| {
        for (row, out) in rows.zip(out.chunks_exact_mut(columns)) {
            if !accumulate {
                out.fill(0.0);
            }
            let pair = pair_of[row] as usize;
            let dy = &dy[pair / k * columns..][..columns];
            vector::add_scaled(device.isa, out, weight[pair], dy);
        }
    });
}

pub(super) fn weight_gradient(run: &CpuRun<'_>) {
    let (dy, values, row_of) = (run.input::<f32>(0), run.input::<f32>(1), run.input::<i32>(2));
    let (columns, k) = (run.input_spec(0).columns(), run.input_spec(2).columns());
    let (live, accumulate, device) = (run.live_input(2), run.accumulate(0), run.device());
    let out = run.output::<f32>(0);
    map_rows(&device.pool, live, k * columns, [(out, k)], |tokens, [out]| {
        for (pair, out) in (tokens.start * k..tokens.end * k).zip(out) {
            let term = match usize::try_from(row_of[pair]) {
                Ok(row) => {
                    let dy = &dy[pair / k * columns..][..columns];
                    vector::dot(device.isa, dy, &values[row * columns..][..columns])
                }
                Err(_) => 0.0,
            };
            *out = if accumulate { *out + term } else { term };
        }
    });
}
