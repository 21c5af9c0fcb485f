//! Between the streams of a rank there is as much order as its memory needs: what two entries both
//! touch, one of them writing, is touched in the order of the list, in this step and the next.

use std::collections::HashMap;

use octet_kernels::ops::Stream;
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use crate::contract::Workload;
use crate::rank_memory::Zero;
use crate::step_plan::tests::random_steps::{Case, case, plans_of};
use crate::step_plan::{Entry, Mark, Run, StepPlan, Work};

/// Memory of one rank, as finely as entries tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Gradient { buffer: usize, bucket: usize },
    OwnParameters(usize),
    OtherParameters(usize),
    Moments(usize),
    States,
    Step,
    Input,
    Activations,
    Staging,
    OwnSums,
    OtherSums,
    Decision,
    Metrics,
}

/// A cell and whether it is written.
type Touch = (Cell, bool);

struct Memory<'c> {
    case: &'c Case,
    rank: usize,
    zero: Zero,
}

impl Memory<'_> {
    fn buckets(&self) -> std::ops::Range<usize> {
        0..self.case.workload.layout.buckets.len()
    }

    fn touches(&self, work: &Work) -> Vec<Touch> {
        let layout = &self.case.workload.layout;
        let read = |cell| (cell, false);
        let write = |cell| (cell, true);
        match work {
            Work::Begin => vec![write(Cell::States), write(Cell::OwnSums)],
            Work::Zero { buffer, parameters } => {
                let buckets = parameters.iter().flat_map(|&id| layout.buckets_of(id));
                buckets.map(|bucket| write(Cell::Gradient { buffer: *buffer, bucket })).collect()
            }
            Work::Load(_) => vec![write(Cell::Input)],
            Work::Run(run) => self.touches_of_run(run),
            Work::Keep(_) => vec![read(Cell::Activations), write(Cell::Metrics)],
            Work::Fold { into, from, elements } => {
                let meets = |&b: &usize| {
                    let bucket = &layout.buckets[b].elements;
                    bucket.start < elements.end && elements.start < bucket.end
                };
                let gradient = |buffer, bucket| Cell::Gradient { buffer, bucket };
                let both = |b| [write(gradient(*into, b)), read(gradient(*from, b))];
                self.buckets().filter(meets).flat_map(both).collect()
            }
            Work::Gather { .. } | Work::Broadcast { .. } => vec![write(Cell::Step)],
            Work::Reduce { bucket } => {
                let pieces = self.case.tree().pieces().into_iter();
                let own = pieces.filter(|piece| piece.rank == self.rank);
                let gradient = |buffer| Cell::Gradient { buffer, bucket: *bucket };
                let sent = own.map(|piece| read(gradient(piece.buffer)));
                sent.chain([write(gradient(0)), write(Cell::Staging)]).collect()
            }
            Work::SumStates => vec![write(Cell::States), write(Cell::Staging)],
            Work::Squares => {
                let gradients =
                    self.buckets().map(|bucket| read(Cell::Gradient { buffer: 0, bucket }));
                gradients.chain([write(Cell::OwnSums)]).collect()
            }
            Work::GatherSquares => vec![read(Cell::OwnSums), write(Cell::OtherSums)],
            Work::Decide => {
                vec![read(Cell::OwnSums), read(Cell::OtherSums), write(Cell::Decision)]
            }
            &Work::Update { bucket } => {
                let mut all = vec![
                    read(Cell::Decision),
                    read(Cell::Gradient { buffer: 0, bucket }),
                    write(Cell::Moments(bucket)),
                    write(Cell::OwnParameters(bucket)),
                ];
                all.extend(
                    (self.zero == Zero::Zero0).then(|| write(Cell::OtherParameters(bucket))),
                );
                all
            }
            &Work::GatherParameters { bucket } => {
                vec![read(Cell::OwnParameters(bucket)), write(Cell::OtherParameters(bucket))]
            }
        }
    }

    fn touches_of_run(&self, run: &Run) -> Vec<Touch> {
        let layout = &self.case.workload.layout;
        let read = |cell| (cell, false);
        let write = |cell| (cell, true);
        let program = &self.case.workload.programs[run.program.0];
        let within = |list: &[(_, usize)]| {
            let inside = list.iter().filter(|(_, node)| run.nodes.contains(node));
            inside.flat_map(|&(id, _)| layout.buckets_of(id)).collect::<Vec<_>>()
        };
        let parameters = within(program.parameter_reads()).into_iter();
        let parameters =
            parameters.flat_map(|b| [read(Cell::OwnParameters(b)), read(Cell::OtherParameters(b))]);
        let buffer = run.buffer;
        let gradients = within(program.gradient_writes()).into_iter();
        let gradients = gradients.map(|bucket| write(Cell::Gradient { buffer, bucket }));
        let rest = [Cell::Activations, Cell::States, Cell::Step, Cell::OwnSums].map(write);
        rest.into_iter().chain([read(Cell::Input)]).chain(parameters).chain(gradients).collect()
    }

    /// The first pair of entries whose order is left open.
    fn race(&self, entries: &[Entry]) -> Option<String> {
        let place = |stream| usize::from(stream == Stream::Communication);
        let mut now = [[0usize; 2]; 2];
        let mut marks: HashMap<Mark, [usize; 2]> = HashMap::new();
        // Per entry: its stream, its number there, what it touches.
        let mut seen: Vec<(usize, usize, &Work, Vec<Touch>)> = Vec::new();
        for Entry { work, stream, after, signals } in entries {
            let own = place(*stream);
            for mark in after {
                let passed = marks.get(mark).copied().unwrap_or_default();
                (0..2).for_each(|i| now[own][i] = now[own][i].max(passed[i]));
            }
            let touches = self.touches(work);
            for (other, number, before, touched) in seen.iter().filter(|one| one.0 != own) {
                let ordered = now[own][*other] >= *number;
                let clash = |a: &Touch| touches.iter().any(|b| a.0 == b.0 && (a.1 || b.1));
                if !ordered && let Some(cell) = touched.iter().find(|touch| clash(touch)) {
                    return Some(format!("{before:?} and {work:?} about {cell:?}"));
                }
            }
            now[own][own] += 1;
            seen.push((own, now[own][own], work, touches));
            marks.extend(signals.iter().map(|&mark| (mark, now[own])));
        }
        None
    }
}

/// Two steps of one rank, one after the other.
fn two_steps(plan: &StepPlan) -> Vec<Entry> {
    plan.entries.iter().chain(&plan.entries).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200, failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn streams_wait_for_each_other_where_they_must(seed in any::<u64>()) {
        let case = case(seed);
        for zero in [Zero::Zero0, Zero::Zero1] {
            for (rank, plan) in plans_of(&case, zero).iter().enumerate() {
                let memory = Memory { case: &case, rank, zero };
                prop_assert_eq!(memory.race(&two_steps(plan)), None);
            }
        }
    }
}

#[test]
fn no_kind_of_wait_can_be_left_out() {
    let kinds: [fn(&Mark) -> bool; 9] = [
        |mark| matches!(mark, Mark::Final(_)),
        |mark| matches!(mark, Mark::Reduced(_)),
        |mark| matches!(mark, Mark::Updated(_)),
        |mark| matches!(mark, Mark::Fresh(_)),
        |mark| matches!(mark, Mark::Ready(_)),
        |mark| matches!(mark, Mark::Exchanged(_)),
        |mark| matches!(mark, Mark::Squared),
        |mark| matches!(mark, Mark::Counted),
        |mark| matches!(mark, Mark::Gathered),
    ];
    for (number, is_of_kind) in kinds.iter().enumerate() {
        let found = (0..60).any(|seed| {
            let case = case(seed);
            let zero = Zero::Zero1;
            plans_of(&case, zero).iter().enumerate().any(|(rank, plan)| {
                let mut entries = two_steps(plan);
                entries.iter_mut().for_each(|entry| entry.after.retain(|mark| !is_of_kind(mark)));
                Memory { case: &case, rank, zero }.race(&entries).is_some()
            })
        });
        assert!(found, "nobody notices that waits of kind {number} are missing");
    }
}

#[test]
fn marks_have_events_of_their_own() {
    let case = case(3);
    let buckets = case.workload.layout().buckets.len();
    let of_bucket = (0..buckets)
        .flat_map(|b| [Mark::Final(b), Mark::Reduced(b), Mark::Updated(b), Mark::Fresh(b)]);
    let of_step = [Mark::Counted, Mark::Summed, Mark::Squared, Mark::Gathered];
    let of_occasion = (0..3).flat_map(|n| [Mark::Ready(n), Mark::Exchanged(n)]);
    let mut events: Vec<usize> =
        of_bucket.chain(of_step).chain(of_occasion).map(|mark| mark.event(buckets).0).collect();
    events.sort_unstable();
    assert!(events.iter().copied().eq(0..Mark::events(buckets, 3)));
}
