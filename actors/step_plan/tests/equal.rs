//! The derived plan beside the one made by hand: the same work in each stream in the same order,
//! and every order that the old waits imply is implied by the new.

use std::collections::HashMap;
use std::hash::Hash;

use octet_kernels::ops::Stream;

use crate::contract::Workload;
use crate::rank_memory::Zero;
use crate::step_plan::tests::old;
use crate::step_plan::tests::random_steps::{Case, case_of};
use crate::step_plan::{Run, StepPlan, Work};

/// An entry of either plan, its run cut into nodes: what a stream does in order, and its marks.
struct Piece<M> {
    atoms: Vec<Work>,
    stream: usize,
    after: Vec<M>,
    signals: Vec<M>,
}

fn atoms(work: &Work) -> Vec<Work> {
    match work {
        Work::Run(run) => {
            let node = |node| Work::Run(Run { nodes: node..node + 1, ..run.clone() });
            run.nodes.clone().map(node).collect()
        }
        other => vec![other.clone()],
    }
}

/// By stream: its atoms, and of every atom how far both streams are done for certain before it.
type Order = [Vec<(Work, [usize; 2])>; 2];

fn order<M: Copy + Eq + Hash>(pieces: &[Piece<M>]) -> Order {
    let mut order: Order = [vec![], vec![]];
    let mut now = [[0usize; 2]; 2];
    let mut marks: HashMap<M, [usize; 2]> = HashMap::new();
    for piece in pieces {
        let own = piece.stream;
        for mark in &piece.after {
            let passed = marks.get(mark).copied().unwrap_or_default();
            (0..2).for_each(|i| now[own][i] = now[own][i].max(passed[i]));
        }
        for atom in &piece.atoms {
            order[own].push((atom.clone(), now[own]));
            now[own][own] += 1;
        }
        marks.extend(piece.signals.iter().map(|&mark| (mark, now[own])));
    }
    order
}

fn twice<M: Copy, E>(entries: &[E], piece: impl Fn(&E) -> Piece<M>) -> Vec<Piece<M>> {
    entries.iter().chain(entries).map(piece).collect()
}

fn number(stream: Stream) -> usize {
    usize::from(stream == Stream::Communication)
}

fn compare(case: &Case, rank: usize, zero: Zero) -> usize {
    let (workload, shape): (&dyn Workload, _) = (&case.workload, &case.shape);
    let old =
        order(&twice(&old::entries_of(workload, shape, case.ranks, rank, zero), |entry| Piece {
            atoms: atoms(&entry.work),
            stream: number(entry.stream),
            after: entry.after.clone(),
            signals: entry.signals.clone(),
        }));
    let plan = StepPlan::new(workload, shape, case.ranks, rank, zero).unwrap();
    let new = order(&twice(&plan.entries, |entry| Piece {
        atoms: atoms(&entry.work),
        stream: number(entry.stream),
        after: entry.after.clone(),
        signals: entry.mark.into_iter().collect(),
    }));
    for (old, new) in old.iter().zip(&new) {
        assert_eq!(old.len(), new.len());
        for ((old, before), (new, behind)) in old.iter().zip(new) {
            assert_eq!(old, new);
            let implied = before.iter().zip(behind).all(|(before, behind)| before <= behind);
            assert!(implied, "{old:?} came behind {before:?}, now behind {behind:?}");
        }
    }
    old.iter().map(Vec::len).sum()
}

#[test]
fn the_derived_plan_keeps_every_order_of_the_one_made_by_hand() {
    let (mut steps, mut plans, mut atoms) = (0, 0, 0);
    let mut seed = 0;
    while steps < 1000 {
        seed += 1;
        let case = case_of(seed, seed % 2 == 0);
        let lanes = case.gradient_lanes();
        if lanes.is_empty() || !lanes.is_sorted() {
            continue;
        }
        steps += 1;
        for zero in [Zero::Zero0, Zero::Zero1] {
            for rank in 0..case.ranks {
                atoms += compare(&case, rank, zero);
                plans += 1;
            }
        }
    }
    assert!(plans > 4000 && atoms > 400_000, "{plans} plans of {atoms} pieces of work");
}
