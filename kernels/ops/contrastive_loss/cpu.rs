//! `contrastive_loss` on the CPU: blocks of rows in order, the rows of a block in parallel.

use std::ops::Range;

use super::BLOCK;
use crate::cpu::CpuDevice;
use crate::cpu::CpuRun;
use crate::cpu::gemm::{Matrix, Output, Size};
use crate::cpu::isa::dispatch;
use crate::cpu::rows::map_rows;
use crate::cpu::softmax::ln;
use crate::cpu::softmax::{softmax_parts, write_loss};
use crate::cpu::vector::exp;

/// Lanes of the sum in [`row_gradient`].
const LANES: usize = 32;

pub(super) fn forward(run: &CpuRun<'_>) {
    let (a, b) = (run.input::<f32>(0), run.input::<f32>(1));
    let (rate, device) = (exp(run.input::<f32>(2)[0]), run.device());
    let [group, columns] = [run.input_spec(0).leading(), run.input_spec(0).columns()];
    let live = run.live_input(0).min(run.live_input(1));
    let products = run.workspace::<f32>();
    let (row_parts, column_parts) = run.output::<f32>(2).split_at_mut(2 * group);
    let (mut sum, size) = (0.0, [live, columns]);
    for (from, to, parts) in [(a, b, row_parts), (b, a, column_parts)] {
        let (largest, sums) = parts.split_at_mut(group);
        for block in blocks(live) {
            let products = multiply(device, from, to, &block, size, products);
            let parts = [(&mut largest[block.clone()], 1), (&mut sums[block.clone()], 1)];
            map_rows(&device.pool, block.len(), live, parts, |rows, [largest, sums]| {
                for (i, row) in rows.enumerate() {
                    let x = &products[row * live..][..live];
                    (largest[i], sums[i]) = softmax_parts(device.isa, x, rate);
                }
            });
            for row in block.clone() {
                let label = f64::from(products[(row - block.start) * live + row]);
                let shifted = (f64::from(largest[row]) - label) * f64::from(rate);
                sum += 0.5 * (shifted + ln(sums[row]));
            }
        }
    }
    write_loss(run, run.input::<f32>(3)[0], sum);
}

pub(super) fn gradient(run: &CpuRun<'_>, wanted: [bool; 3]) {
    let (a, b) = (run.input::<f32>(0), run.input::<f32>(1));
    let (rate, device) = (exp(run.input::<f32>(2)[0]), run.device());
    let factor = run.input::<f32>(3)[0] * run.input::<f32>(4)[0];
    let [group, columns] = [run.input_spec(0).leading(), run.input_spec(0).columns()];
    let parts = run.input::<f32>(5);
    let live = run.live_input(0).min(run.live_input(1));
    let (products, terms) = run.workspace::<f32>().split_at_mut(BLOCK * group);
    let column = Column { largest: &parts[2 * group..][..live], sums: &parts[3 * group..][..live] };
    let mut da = wanted[0].then(|| run.output::<f32>(0));
    let mut db = wanted[1].then(|| run.output::<f32>(usize::from(wanted[0])));
    let mut dlog_scale = 0.0;
    for block in blocks(live) {
        multiply(device, a, b, &block, [live, columns], products);
        let outputs = [(&mut products[..block.len() * live], live), (&mut terms[..block.len()], 1)];
        map_rows(&device.pool, block.len(), 2 * live, outputs, |rows, [products, terms]| {
            let products = products.chunks_exact_mut(live);
            for (row, (x, term)) in rows.zip(products.zip(terms)) {
                let row = block.start + row;
                let own = [parts[row], 0.5 * factor / parts[group + row]];
                let label = x[row];
                let sum = row_gradient(device.isa, x, own, &column, rate, 0.5 * factor);
                *term = sum - factor * label;
                x[row] -= rate * factor;
            }
        });
        dlog_scale += terms[..block.len()].iter().map(|&t| f64::from(t)).sum::<f64>();
        let span = block.start * columns..block.end * columns;
        if let Some(da) = &mut da {
            let size = Size { m: block.len(), n: columns, k: live };
            let out = Output::new(&mut da[span.clone()], columns, false);
            device.gemm(size, Matrix::rows(products, live), Matrix::rows(b, columns), out);
        }
        if let Some(db) = &mut db {
            let size = Size { m: live, n: columns, k: block.len() };
            let out = Output::new(db, columns, block.start > 0);
            let a = Matrix::rows(&a[span], columns);
            device.gemm(size, Matrix::transposed(products, live), a, out);
        }
    }
    if wanted[2] {
        let at = usize::from(wanted[0]) + usize::from(wanted[1]);
        run.output::<f32>(at)[0] = (f64::from(rate) * dlog_scale) as f32;
    }
}

/// The softmax parts of every column.
struct Column<'a> {
    largest: &'a [f32],
    sums: &'a [f32],
}

fn blocks(live: usize) -> impl Iterator<Item = Range<usize>> {
    (0..live).step_by(BLOCK).map(move |start| start..live.min(start + BLOCK))
}

/// Inner products of a block of rows of `from` with all live rows of `to`.
fn multiply<'p>(
    device: &CpuDevice,
    from: &[f32],
    to: &[f32],
    block: &Range<usize>,
    [live, columns]: [usize; 2],
    products: &'p mut [f32],
) -> &'p [f32] {
    let size = Size { m: block.len(), n: live, k: columns };
    let from = Matrix::rows(&from[block.start * columns..block.end * columns], columns);
    let out = Output::new(products, live, false);
    device.gemm(size, from, Matrix::transposed(to, columns), out);
    products
}

dispatch! {
    /// Replaces the products x of a row by `rate` times the gradient of its logits, but for the
    /// label, and returns the sum of gradient times product. `own` holds the row's largest product
    /// and its factor.
    fn row_gradient(
        x: &mut [f32],
        own: [f32; 2],
        column: &Column<'_>,
        rate: f32,
        factor: f32,
    ) -> f32 {
        let mut lanes = [0.0f32; LANES];
        let columns = column.largest.chunks(LANES).zip(column.sums.chunks(LANES));
        for (x, (largest, sums)) in x.chunks_mut(LANES).zip(columns) {
            let columns = largest.iter().zip(sums);
            for ((x, lane), (&largest, &sum)) in x.iter_mut().zip(&mut lanes).zip(columns) {
                let by_row = own[1] * exp((*x - own[0]) * rate);
                let gradient = (factor / sum).mul_add(exp((*x - largest) * rate), by_row);
                *lane = gradient.mul_add(*x, *lane);
                *x = gradient * rate;
            }
        }
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                lanes[lane] += lanes[lane + width];
            }
            width /= 2;
        }
        lanes[0]
    }
}
