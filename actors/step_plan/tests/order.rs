//! Between the streams of a rank there is as much order as its memory needs: what two entries both
//! touch, one of them writing, is touched in the order of the plan, in this step and the next. The
//! check knows nothing of how plans are made, and finds every mark that is missing.

use std::collections::HashMap;

use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use crate::rank_memory::Zero;
use crate::step_plan::tests::random_steps::{Case, case_of, plans_of};
use crate::step_plan::touches::{Memory, Touch};
use crate::step_plan::{Entry, Mark, StepPlan, Work};

const STREAMS: usize = 2;

/// The first pair of entries whose order is left open.
fn race(memory: &Memory<'_>, entries: &[Entry]) -> Option<String> {
    let mut now = [[0usize; STREAMS]; STREAMS];
    let mut marks: HashMap<Mark, [usize; STREAMS]> = HashMap::new();
    // Per entry: its stream, its number there, what it touches.
    let mut seen: Vec<(usize, usize, &Work, Vec<Touch>)> = Vec::new();
    for Entry { work, stream, after, mark } in entries {
        let own = *stream as usize;
        for mark in after {
            let passed = marks.get(mark).copied().unwrap_or_default();
            (0..STREAMS).for_each(|i| now[own][i] = now[own][i].max(passed[i]));
        }
        let touches = memory.touches(work);
        for (other, number, before, touched) in seen.iter().filter(|one| one.0 != own) {
            let ordered = now[own][*other] >= *number;
            let clash =
                |a: &Touch| touches.iter().any(|b| a.cell == b.cell && (a.writes || b.writes));
            if !ordered && let Some(touch) = touched.iter().find(|touch| clash(touch)) {
                return Some(format!("{before:?} and {work:?} about {:?}", touch.cell));
            }
        }
        now[own][own] += 1;
        seen.push((own, now[own][own], work, touches));
        marks.extend(mark.iter().map(|&mark| (mark, now[own])));
    }
    None
}

/// Two steps of one rank, one after the other.
fn two_steps(plan: &StepPlan) -> Vec<Entry> {
    plan.entries.iter().chain(&plan.entries).cloned().collect()
}

fn memory(case: &Case, rank: usize, zero: Zero) -> Memory<'_> {
    Memory::new(&case.workload, &case.tree(), rank, zero)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200, failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn streams_wait_for_each_other_where_they_must(seed in any::<u64>()) {
        let case = case_of(seed, seed % 2 == 0);
        for zero in [Zero::Zero0, Zero::Zero1] {
            for (rank, plan) in plans_of(&case, zero).iter().enumerate() {
                let memory = memory(&case, rank, zero);
                prop_assert_eq!(race(&memory, &two_steps(plan)), None);
            }
        }
    }
}

/// All plans of some random steps, with their memory.
fn with_plans(mut check: impl FnMut(&Memory<'_>, &StepPlan)) {
    for seed in 0..60 {
        let case = case_of(seed, seed % 2 == 0);
        for (rank, plan) in plans_of(&case, Zero::Zero1).iter().enumerate() {
            check(&memory(&case, rank, Zero::Zero1), plan);
        }
    }
}

#[test]
fn a_wait_that_is_left_out_is_found() {
    let mut waits = 0;
    let mut unnoticed = Vec::new();
    with_plans(|memory, plan| {
        for (i, entry) in plan.entries.iter().enumerate() {
            for (k, _) in entry.after.iter().enumerate() {
                let mut without = plan.clone();
                without.entries[i].after.remove(k);
                waits += 1;
                if race(memory, &two_steps(&without)).is_none() {
                    unnoticed.push(format!("{:?} {:?}", entry.work, entry.after));
                }
            }
        }
    });
    // Those that the hand-made plan had though memory does not need them.
    assert!(unnoticed.len() * 10 < waits, "{} of {waits}: {unnoticed:#?}", unnoticed.len());
}
