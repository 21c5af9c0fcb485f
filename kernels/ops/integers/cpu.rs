//! `integers` on the CPU, in order.

use crate::cpu::CpuRun;
use crate::ops::integers::{Integers, Rule};

pub(super) fn forward(run: &CpuRun<'_>, op: &Integers) {
    let live = (0..run.inputs()).map(|i| run.live_input(i)).min().unwrap_or(0);
    let live = live * run.input_spec(0).elements_per_row();
    let out = &mut run.output::<i32>(0)[..live];
    let a = run.input::<i32>(0);
    let b = if matches!(op.rule, Rule::LessThan(_)) { a } else { run.input::<i32>(1) };
    for (o, (&a, &b)) in out.iter_mut().zip(a.iter().zip(b)) {
        *o = match op.rule {
            Rule::NotEqual => i32::from(a != b),
            Rule::Add => a.wrapping_add(b),
            Rule::KeepOr(otherwise) if b == 0 => otherwise,
            Rule::KeepOr(_) => a,
            Rule::LessThan(limit) => i32::from(a < limit),
        };
    }
}

pub(super) fn total(run: &CpuRun<'_>) {
    let live = run.live_input(0) * run.input_spec(0).elements_per_row();
    let a = &run.input::<i32>(0)[..live];
    run.output::<i32>(0)[0] = a.iter().fold(0, |sum, &a| sum.wrapping_add(a));
}
