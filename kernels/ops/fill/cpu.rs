//! `fill` on the CPU.

use crate::cpu::CpuRun;
use crate::ops::fill::Fill;

pub(super) fn forward(run: &CpuRun<'_>, op: &Fill) {
    run.output::<f32>(0).fill(op.value);
}
