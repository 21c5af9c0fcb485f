//! `rope` on the CPU, row by row.

use crate::cpu::CpuRun;
use crate::cpu::isa::dispatch;
use crate::cpu::rows::map_rows;
use crate::ops::rope::{Rope, RopeTable};

pub(super) fn forward(run: &CpuRun<'_>, op: &Rope) {
    let (x, positions, y) = (run.input::<f32>(0), run.input::<i32>(1), run.output::<f32>(0));
    let RopeTable { spec, cosines, sines } = &*op.table;
    let (columns, half) = (run.input_spec(0).columns(), spec.head_dim / 2);
    let (rotated, device) = (op.heads * spec.head_dim, run.device());
    let sign = if op.inverse { -1.0 } else { 1.0 };
    map_rows(&device.pool, run.live_input(0), columns, [(y, columns)], |rows, [y]| {
        for (row, y) in rows.zip(y.chunks_exact_mut(columns)) {
            let x = &x[row * columns..][..columns];
            y[rotated..].copy_from_slice(&x[rotated..]);
            match usize::try_from(positions[row]) {
                Ok(position) if position < spec.max_positions => {
                    let angles = position * half..(position + 1) * half;
                    let (cosines, sines) = (&cosines[angles.clone()], &sines[angles]);
                    rotate(device.isa, &x[..rotated], cosines, sines, sign, &mut y[..rotated]);
                }
                _ => y[..rotated].fill(f32::NAN),
            }
        }
    });
}

dispatch! {
    /// Rotates all heads of a row by one position.
    fn rotate(x: &[f32], cosines: &[f32], sines: &[f32], sign: f32, y: &mut [f32]) {
        let half = cosines.len();
        for (x, y) in x.chunks_exact(2 * half).zip(y.chunks_exact_mut(2 * half)) {
            let ((x1, x2), (y1, y2)) = (x.split_at(half), y.split_at_mut(half));
            let pairs = x1.iter().zip(x2).zip(cosines.iter().zip(sines));
            for (((x1, x2), (cos, sin)), (y1, y2)) in pairs.zip(y1.iter_mut().zip(y2)) {
                let sin = sign * sin;
                *y1 = x1.mul_add(*cos, -(x2 * sin));
                *y2 = x2.mul_add(*cos, x1 * sin);
            }
        }
    }
}
