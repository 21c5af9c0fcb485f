//! `group_by_expert` on the CPU: a counting sort in one thread.

use crate::cpu::CpuRun;

pub(super) fn sort(run: &CpuRun<'_>, capacity: usize) {
    let pairs = run.live_input(0) * run.input_spec(0).columns();
    let expert = &run.input::<i32>(0)[..pairs];
    let (row_of, pair_of) = (&mut run.output::<i32>(0)[..pairs], run.output::<i32>(1));
    let (start, next) = (run.output::<i32>(2), run.workspace::<i32>());
    start.fill(0);
    expert.iter().for_each(|&e| start[e as usize + 1] += 1);
    let mut rows = 0;
    for (next, start) in next.iter_mut().zip(&mut start[1..]) {
        *next = rows;
        rows += *start;
        *start = rows.min(capacity as i32);
    }
    for (pair, (&e, row_of)) in expert.iter().zip(row_of).enumerate() {
        let row = next[e as usize];
        next[e as usize] += 1;
        *row_of = match pair_of.get_mut(row as usize) {
            Some(slot) => {
                *slot = pair as i32;
                row
            }
            None => -1,
        };
    }
    if pairs > capacity {
        run.raise_overflow();
    }
    run.output::<i32>(3)[0] = pairs.min(capacity) as i32;
}
