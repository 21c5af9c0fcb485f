//! One optimizer step of one rank, as if there were one stream. This is what a rank does.

use crate::contract::{Phase, Workload};
use crate::rank_memory::Zero;
use crate::step_plan::share::Share;
use crate::step_plan::touches::buckets_by_first_read;
use crate::step_plan::work::Work;

/// A place in the list.
pub(super) struct Listed {
    pub(super) work: Work,
    /// Where in the list it may come already, as soon as what it touches is final; here if `None`.
    pub(super) earliest: Option<usize>,
}

/// The list. Gradients of the last lane leave bucket by bucket as they become final: where that may
/// begin is the same for all ranks, the last phase that writes any.
pub(super) fn step(share: &Share<'_>) -> Vec<Listed> {
    let mut list = List(Vec::new());
    list.add([Work::Begin]);
    let mut final_from = None;
    for (number, phase) in share.phases() {
        match phase {
            Phase::Each { .. } | Phase::Once { .. } => {
                for run in share.runs_of(number) {
                    list.add(share.zero_before(run));
                    list.add_early(Some(1), [share.load(run)]);
                    if share.is_final(run) {
                        final_from.get_or_insert(list.0.len());
                    }
                    list.add([share.run(run), share.keep(run)]);
                    list.add(share.fold_after(run));
                }
            }
            Phase::Gather { buffer, micro_batches } => {
                list.add([share.gather(*buffer, micro_batches)]);
            }
            Phase::Broadcast { buffer, micro_batches } => {
                list.add([share.broadcast(*buffer, micro_batches)]);
            }
        }
        if number == share.last_phase {
            list.add(share.zero_rest());
            for bucket in share.buckets() {
                let leave = share.fold_last(bucket).chain([Work::Reduce { bucket }]);
                list.add_early(final_from, leave);
            }
        }
    }
    list.add(share.sums_states().then_some(Work::SumStates));
    list.add([Work::Squares, Work::GatherSquares, Work::Decide]);
    for bucket in buckets_by_first_read(share.workload) {
        list.add([Work::Update { bucket }]);
        list.add((share.zero == Zero::Zero1).then_some(Work::GatherParameters { bucket }));
    }
    list.add([Work::Outcome]);
    list.add(share.finally());
    list.0
}

/// A snapshot of one rank behind a step. Later steps wait for it where they write what it copies.
pub(super) fn snapshot(workload: &dyn Workload, rank: usize) -> Vec<Listed> {
    let mut list = List(Vec::new());
    list.add([Work::Rest]);
    list.add((rank == 0).then_some(Work::SaveShared));
    list.add(buckets_by_first_read(workload).into_iter().map(|bucket| Work::Save { bucket }));
    list.0
}

struct List(Vec<Listed>);

impl List {
    fn add(&mut self, works: impl IntoIterator<Item = Work>) {
        self.add_early(None, works);
    }

    fn add_early(&mut self, earliest: Option<usize>, works: impl IntoIterator<Item = Work>) {
        self.0.extend(works.into_iter().map(|work| Listed { work, earliest }));
    }
}
