//! Between the streams of a rank there is as much order as its memory needs, and no more: what two
//! entries both touch, one of them writing, is touched in the order of the plan, in this step and
//! the next. The check knows nothing of how plans are made, and finds every mistake that is planted
//! in them.

use std::collections::HashMap;

use octet_kernels::device::STREAMS;
use octet_kernels::ops::Stream;
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use crate::rank_memory::{INPUTS, Zero};
use crate::step_plan::tests::random_steps::{Case, case_of, plans_of};
use crate::step_plan::touches::Memory;
use crate::step_plan::{Entry, Load, Mark, StepPlan, Work};

type Clock = [usize; STREAMS];

/// Who has touched a cell, by stream: the entries that have read it and those that have written it,
/// the last of each, by their numbers in their streams.
#[derive(Clone, Copy, Default)]
struct Last {
    read: Clock,
    write: Clock,
}

/// The first entry whose order to an earlier one is left open. What ran before, other programs or a
/// step of another shape, may have touched anything: it counts as one entry of compute.
fn race(memory: &Memory<'_>, entries: &[Entry]) -> Option<String> {
    let mut now = [Clock::default(); STREAMS];
    now[Stream::Compute as usize][Stream::Compute as usize] = 1;
    let mut before = Last::default();
    before.write[Stream::Compute as usize] = 1;
    let mut last = vec![before; memory.cells()];
    let mut marks: HashMap<Mark, Clock> = HashMap::new();
    for Entry { work, stream, after, mark } in entries {
        let own = *stream as usize;
        for passed in after.iter().filter_map(|mark| marks.get(mark)) {
            (0..STREAMS).for_each(|i| now[own][i] = now[own][i].max(passed[i]));
        }
        let touches = memory.touches(work);
        for touch in &touches {
            let Last { read, write } = last[memory.index(touch.cell)];
            for other in (0..STREAMS).filter(|&other| other != own) {
                let reads = if touch.writes { read[other] } else { 0 };
                if now[own][other] < reads.max(write[other]) {
                    return Some(format!("{work:?} is not behind all of {:?}", touch.cell));
                }
            }
        }
        now[own][own] += 1;
        for touch in &touches {
            let cell = &mut last[memory.index(touch.cell)];
            let kind = if touch.writes { &mut cell.write } else { &mut cell.read };
            kind[own] = now[own][own];
        }
        marks.extend(mark.map(|mark| (mark, now[own])));
    }
    None
}

/// Two steps of one rank, one after the other, and a snapshot between them. The first is of a shape
/// without programs that end it, which would have waited for what the second finds under way.
fn two_steps(case: &Case, rank: usize, zero: Zero, plan: &StepPlan) -> Vec<Entry> {
    let snapshot = StepPlan::snapshot(&case.workload, case.ranks, rank, zero).unwrap();
    let first = plan.entries.iter().filter(|entry| !matches!(entry.work, Work::Finally { .. }));
    first.chain(&snapshot.entries).chain(&plan.entries).cloned().collect()
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
                prop_assert_eq!(race(&memory, &two_steps(&case, rank, zero, plan)), None);
                let snapshot = StepPlan::snapshot(&case.workload, case.ranks, rank, zero).unwrap();
                for plans in [vec![plan, plan], vec![plan, &snapshot, plan]] {
                    let entries = plans.into_iter().flat_map(|plan| plan.entries.clone());
                    prop_assert_eq!(race(&memory, &entries.collect::<Vec<_>>()), None);
                }
            }
        }
    }
}

/// Plants mistakes, one at a time, in the plans of some random steps, and returns how many there
/// were and those that nobody has noticed.
fn unnoticed(mistakes: impl Fn(&StepPlan) -> Vec<StepPlan>) -> (usize, Vec<StepPlan>) {
    let (mut planted, mut unnoticed) = (0, Vec::new());
    for seed in 0..40 {
        let case = case_of(seed, seed % 2 == 0);
        for (rank, plan) in plans_of(&case, Zero::Zero1).iter().enumerate() {
            let memory = memory(&case, rank, Zero::Zero1);
            for wrong in mistakes(plan) {
                planted += 1;
                let entries = two_steps(&case, rank, Zero::Zero1, &wrong);
                if race(&memory, &entries).is_none() {
                    unnoticed.push(wrong);
                }
            }
        }
    }
    (planted, unnoticed)
}

#[test]
fn every_wait_that_is_left_out_is_found() {
    let (planted, unnoticed) = unnoticed(|plan| {
        let waits = |i: usize| (0..plan.entries[i].after.len()).map(move |k| (i, k));
        let without = |(i, k): (usize, usize)| {
            let mut wrong = plan.clone();
            wrong.entries[i].after.remove(k);
            wrong
        };
        (0..plan.entries.len()).flat_map(waits).map(without).collect()
    });
    assert!(planted > 500, "{planted} waits");
    assert!(unnoticed.is_empty(), "{} of {planted}: {:#?}", unnoticed.len(), unnoticed[0]);
}

/// The plan with the mark of entry `from` at entry `to` of the same stream, if that has none.
fn with_mark_at(plan: &StepPlan, from: usize, to: Option<usize>) -> Option<StepPlan> {
    let mut wrong = plan.clone();
    let mark = wrong.entries[from].mark.take();
    let there = &mut wrong.entries[to?].mark;
    there.is_none().then(|| *there = mark)?;
    Some(wrong)
}

/// The entries for whose marks somebody waits.
fn marked(plan: &StepPlan) -> impl Iterator<Item = usize> {
    let waits = |mark: Mark| plan.entries.iter().any(|entry| entry.after.contains(&mark));
    (0..plan.entries.len()).filter(move |&i| plan.entries[i].mark.is_some_and(waits))
}

fn is_of(stream: Stream) -> impl Fn(&Entry) -> bool {
    move |entry| entry.stream == stream
}

#[test]
fn every_mark_that_is_set_too_early_is_found() {
    let (planted, unnoticed) = unnoticed(|plan| {
        let earlier = |i: usize| {
            let same = is_of(plan.entries[i].stream);
            with_mark_at(plan, i, plan.entries[..i].iter().rposition(same))
        };
        marked(plan).filter_map(earlier).collect()
    });
    assert!(planted > 300, "{planted} marks");
    assert!(unnoticed.is_empty(), "{} of {planted}: {:#?}", unnoticed.len(), unnoticed[0]);
}

/// Whoever waits for a mark before it is set waits for nothing.
#[test]
fn every_mark_that_is_set_too_late_is_found() {
    let (planted, unnoticed) = unnoticed(|plan| {
        let waiter = |mark: &Mark| plan.entries.iter().position(|e| e.after.contains(mark));
        let later = |i: usize| {
            let waiter = waiter(&plan.entries[i].mark?).filter(|&waiter| waiter > i)?;
            let same = is_of(plan.entries[i].stream);
            let next = plan.entries[waiter..].iter().position(|e| same(e) && e.mark.is_none());
            with_mark_at(plan, i, next.map(|next| waiter + next))
        };
        marked(plan).filter_map(later).collect()
    });
    assert!(planted > 300, "{planted} marks");
    assert!(unnoticed.is_empty(), "{} of {planted}: {:#?}", unnoticed.len(), unnoticed[0]);
}

#[test]
fn a_slot_of_the_device_that_is_reused_early_is_found() {
    let (planted, unnoticed) = unnoticed(|plan| {
        let early = |i: usize| {
            let Work::Load(load) = &plan.entries[i].work else { return None };
            let mut wrong = plan.clone();
            // The record comes where the run before it has its own.
            wrong.entries[i].work = Work::Load(Load { row: load.row + 1, ..load.clone() });
            (load.row > 0 && INPUTS == 2).then_some(wrong)
        };
        (0..plan.entries.len()).filter_map(early).collect()
    });
    assert!(planted > 50, "{planted} records");
    assert!(unnoticed.is_empty(), "{} of {planted}: {:#?}", unnoticed.len(), unnoticed[0]);
}

/// What a snapshot copies is overwritten behind it only, whichever of its marks comes too early.
#[test]
fn every_mark_of_a_snapshot_that_is_set_too_early_is_found() {
    let (mut planted, mut unnoticed) = (0, 0);
    for seed in 0..20 {
        let case = case_of(seed, seed % 2 == 0);
        for (rank, plan) in plans_of(&case, Zero::Zero1).iter().enumerate() {
            let memory = memory(&case, rank, Zero::Zero1);
            let entries = two_steps(&case, rank, Zero::Zero1, plan);
            for i in 0..entries.len() {
                if let Work::Save { .. } = entries[i].work {
                    let mut wrong = entries.clone();
                    let mark = wrong[i].mark.take();
                    wrong.insert(i, Entry { work: Work::Rest, mark, ..wrong[i].clone() });
                    planted += 1;
                    unnoticed += usize::from(race(&memory, &wrong).is_none());
                }
            }
        }
    }
    assert!(planted > 50, "{planted} marks");
    assert_eq!(unnoticed, 0, "of {planted}");
}

#[test]
fn marks_have_numbers_of_their_own_and_those_that_last_are_fixed() {
    for seed in 0..40 {
        let case = case_of(seed, seed % 2 == 0);
        let lasting = Mark::lasting(case.workload.layout.buckets.len());
        for plan in plans_of(&case, Zero::Zero1) {
            let marks = plan.entries.iter().filter_map(|entry| entry.mark);
            let mut marks: Vec<usize> = marks.map(|mark| mark.0).collect();
            let fixed = |entry: &Entry| match entry.work.lasting() {
                Some(mark) => entry.mark == Some(mark),
                None => entry.mark.is_none_or(|mark| mark.0 >= lasting),
            };
            assert!(plan.entries.iter().all(fixed));
            marks.retain(|&mark| mark >= lasting);
            marks.sort_unstable();
            assert!(marks.iter().copied().eq(lasting..plan.marks), "{marks:?} of {}", plan.marks);
        }
    }
}
