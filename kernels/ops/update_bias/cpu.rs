//! `update_bias` on the CPU.

use crate::cpu::CpuRun;
use crate::ops::update_bias::UpdateBias;

pub(super) fn forward(run: &CpuRun<'_>, op: &UpdateBias) {
    let (counts, bias) = (run.input::<i32>(0), run.output::<f32>(0));
    let total: i64 = counts.iter().map(|&count| i64::from(count)).sum();
    for (bias, &count) in bias.iter_mut().zip(counts) {
        let below = (total - i64::from(count) * counts.len() as i64).signum();
        let step = op.rate * below as f32;
        *bias = if run.accumulate(0) { *bias + step } else { step };
    }
}
