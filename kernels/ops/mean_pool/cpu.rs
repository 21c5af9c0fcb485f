//! `mean_pool` on the CPU: sequences in parallel, positions in order.

use crate::cpu::rows::map_rows;
use crate::cpu::{CpuRun, vector};

pub(super) fn forward(run: &CpuRun<'_>) {
    let x = run.input::<f32>(0);
    let [_, positions, columns] = run.input_spec(0).shape[..] else { unreachable!("checked") };
    let mask = (run.inputs() > 1).then(|| run.input::<i32>(1));
    let (live, device, y) = (run.live_input(0), run.device(), run.output::<f32>(0));
    map_rows(&device.pool, live, positions * columns, [(y, columns)], |sequences, [y]| {
        for (sequence, y) in sequences.zip(y.chunks_exact_mut(columns)) {
            let first = sequence * positions;
            y.fill(0.0);
            for row in (first..first + positions).filter(|&row| counts(mask, row)) {
                vector::add_scaled(device.isa, y, 1.0, &x[row * columns..][..columns]);
            }
            vector::scale(device.isa, y, share(mask, first, positions));
        }
    });
}

pub(super) fn gradient(run: &CpuRun<'_>, positions: usize) {
    let (dy, columns) = (run.input::<f32>(0), run.input_spec(0).columns());
    let mask = (run.inputs() > 1).then(|| run.input::<i32>(1));
    let (live, device, accumulate) = (run.live_input(0), run.device(), run.accumulate(0));
    let per_sequence = positions * columns;
    let outputs = [(run.output::<f32>(0), per_sequence)];
    map_rows(&device.pool, live, per_sequence, outputs, |sequences, [dx]| {
        for (sequence, dx) in sequences.zip(dx.chunks_exact_mut(per_sequence)) {
            if !accumulate {
                dx.fill(0.0);
            }
            let first = sequence * positions;
            let share = share(mask, first, positions);
            for (row, dx) in (first..).zip(dx.chunks_exact_mut(columns)) {
                if counts(mask, row) {
                    vector::add_scaled(device.isa, dx, share, &dy[sequence * columns..][..columns]);
                }
            }
        }
    });
}

fn counts(mask: Option<&[i32]>, row: usize) -> bool {
    mask.is_none_or(|mask| mask[row] != 0)
}

/// 1 over the number of positions that count, or 0.
fn share(mask: Option<&[i32]>, first: usize, positions: usize) -> f32 {
    let count = (first..first + positions).filter(|&row| counts(mask, row)).count();
    if count == 0 { 0.0 } else { 1.0 / count as f32 }
}
