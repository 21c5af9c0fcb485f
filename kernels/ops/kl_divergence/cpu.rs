//! `kl_divergence` on the CPU: rows in parallel, their terms added in order.

use crate::cpu::CpuRun;
use crate::cpu::isa::dispatch;
use crate::cpu::rows::map_rows;
use crate::cpu::softmax::ln;
use crate::cpu::softmax::{add_exp, log_sum_exp, softmax_parts, write_loss};
use crate::cpu::vector::exp;

/// Lanes of [`expected_difference`].
const LANES: usize = 16;

pub(super) fn forward(run: &CpuRun<'_>, temperature: f32) {
    let (student, teacher) = (run.input::<f32>(0), run.input::<f32>(1));
    let (columns, device) = (run.input_spec(0).columns(), run.device());
    let live = run.live_input(0).min(run.live_input(1));
    let terms = &mut run.workspace::<f64>()[..live];
    let (rate, isa) = (1.0 / temperature, device.isa);
    map_rows(&device.pool, live, 2 * columns, [(&mut *terms, 1)], |rows, [terms]| {
        for (row, term) in rows.zip(terms) {
            let student = &student[row * columns..][..columns];
            let teacher = &teacher[row * columns..][..columns];
            let (largest, sum) = softmax_parts(isa, teacher, rate);
            let difference = expected_difference(isa, teacher, student, largest, rate);
            let teacher_log = f64::from(largest) * f64::from(rate) + ln(sum);
            let own = f64::from(rate) * difference / f64::from(sum);
            let kl = own - teacher_log + log_sum_exp(isa, student, rate);
            *term = kl * f64::from(temperature).powi(2);
        }
    });
    write_loss(run, run.input::<f32>(2)[0], terms.iter().sum());
}

pub(super) fn gradient(run: &CpuRun<'_>, temperature: f32) {
    let (student, teacher) = (run.input::<f32>(0), run.input::<f32>(1));
    let factor = run.input::<f32>(2)[0] * run.input::<f32>(3)[0] * temperature;
    let (columns, device) = (run.input_spec(0).columns(), run.device());
    let live = run.live_input(0).min(run.live_input(1));
    let (dx, accumulate, rate) = (run.output::<f32>(0), run.accumulate(0), 1.0 / temperature);
    map_rows(&device.pool, live, 2 * columns, [(dx, columns)], |rows, [dx]| {
        for (row, dx) in rows.zip(dx.chunks_exact_mut(columns)) {
            if !accumulate {
                dx.fill(0.0);
            }
            for (x, factor) in [(student, factor), (teacher, -factor)] {
                let x = &x[row * columns..][..columns];
                let (largest, sum) = softmax_parts(device.isa, x, rate);
                add_exp(device.isa, dx, x, largest, rate, factor / sum);
            }
        }
    });
}

dispatch! {
    /// Σ e^((t - largest) rate) (t - s) over classes that the teacher allows, in f64: element i
    /// goes to lane i mod 16.
    fn expected_difference(t: &[f32], s: &[f32], largest: f32, rate: f32) -> f64 {
        let mut lanes = [0.0f64; LANES];
        for (t, s) in t.chunks(LANES).zip(s.chunks(LANES)) {
            for ((lane, &t), &s) in lanes.iter_mut().zip(t).zip(s) {
                let weight = exp((t - largest) * rate);
                let term = f64::from(weight) * (f64::from(t) - f64::from(s));
                *lane += if weight == 0.0 { 0.0 } else { term };
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
