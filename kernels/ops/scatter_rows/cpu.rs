//! `scatter_rows` on the CPU: a copy in chunks, then the replaced rows in order.

use crate::cpu::CpuRun;
use crate::cpu::rows::map_rows;

pub(super) fn scatter(run: &CpuRun<'_>) {
    let (values, index) = (run.input::<u32>(1), &run.input::<i32>(2)[..run.live_input(2)]);
    let columns = run.input_spec(0).elements_per_row();
    let out = copy(run, columns);
    for (values, &to) in values.chunks_exact(columns).zip(index) {
        if let Some(row) = row(out, columns, to) {
            row.copy_from_slice(values);
        }
    }
}

pub(super) fn clear(run: &CpuRun<'_>) {
    let index = &run.input::<i32>(1)[..run.live_input(1)];
    let columns = run.input_spec(0).elements_per_row();
    let out = copy(run, columns);
    for &to in index {
        if let Some(row) = row(out, columns, to) {
            row.fill(0);
        }
    }
}

/// Copies the live rows of input 0, bit by bit, and returns them.
fn copy<'a>(run: &CpuRun<'a>, columns: usize) -> &'a mut [u32] {
    let (x, live) = (run.input::<u32>(0), run.live_input(0));
    let out = &mut run.output::<u32>(0)[..live * columns];
    map_rows(&run.device().pool, live, columns, [(&mut *out, columns)], |rows, [out]| {
        out.copy_from_slice(&x[rows.start * columns..rows.end * columns]);
    });
    out
}

fn row(out: &mut [u32], columns: usize, number: i32) -> Option<&mut [u32]> {
    out.chunks_exact_mut(columns).nth(usize::try_from(number).ok()?)
}
