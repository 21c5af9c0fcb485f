//! `compact` on the CPU, in order.

use crate::cpu::CpuRun;
use crate::ops::compact::Compact;

pub(super) fn forward(run: &CpuRun<'_>, op: &Compact) {
    let mask = &run.input::<i32>(0)[..run.live_input(0)];
    let (index, mut found) = (run.output::<i32>(0), 0);
    for (position, _) in mask.iter().enumerate().filter(|(_, set)| **set != 0) {
        if let Some(slot) = index.get_mut(found) {
            *slot = position as i32;
        }
        found += 1;
    }
    if found > op.capacity {
        run.raise_overflow();
    }
    run.output::<i32>(1)[0] = found.min(op.capacity) as i32;
}
