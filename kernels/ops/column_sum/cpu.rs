//! `column_sum` on the CPU: strips of columns, each in fixed blocks of rows.

use crate::cpu::isa::dispatch;
use crate::cpu::rows::column_sums;
use crate::cpu::{CpuDevice, CpuRun};

pub(super) fn forward(run: &CpuRun<'_>) {
    let (dy, out) = (run.input::<f32>(0), run.output::<f32>(0));
    add_column_sums(run.device(), dy, run.live_input(0), out, run.accumulate(0));
}

/// Column sums of the first `rows` rows of `dy`, which are as long as `out`.
pub(crate) fn add_column_sums(
    device: &CpuDevice,
    dy: &[f32],
    rows: usize,
    out: &mut [f32],
    accumulate: bool,
) {
    let stride = out.len();
    column_sums(&device.pool, rows, out, accumulate, |rows, columns, partial| {
        let from = rows.start * stride + columns.start;
        add_rows(device.isa, &dy[from..], rows.len(), stride, partial);
    });
}

dispatch! {
    /// Adds `rows` rows that are `stride` apart to `partial`.
    fn add_rows(dy: &[f32], rows: usize, stride: usize, partial: &mut [f32]) {
        let columns = partial.len();
        for row in 0..rows {
            let dy = &dy[row * stride..][..columns];
            partial.iter_mut().zip(dy).for_each(|(p, dy)| *p += dy);
        }
    }
}
