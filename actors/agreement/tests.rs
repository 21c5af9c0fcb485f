//! All ranks agree, however they interleave with whoever ends the run.

use std::sync::{Arc, Barrier};
use std::thread;

use proptest::prelude::{any, prop_assert, proptest};

use crate::agreement::{Agreement, UPDATE};
use crate::sim::toy::Random;

#[test]
fn nothing_is_given_up_until_somebody_asks() {
    let agreement = Agreement::default();
    for ticket in 0..3 {
        assert!((0..5).all(|number| agreement.begins(ticket, number)));
        assert!(agreement.begins(ticket, UPDATE));
    }
    assert!(!agreement.gives_up());
    agreement.give_up();
    assert!(agreement.gives_up());
    assert!(!agreement.begins(3, 0) && !agreement.begins(3, UPDATE), "later steps do not begin");
}

#[test]
fn what_one_rank_has_begun_all_ranks_do() {
    let agreement = Agreement::default();
    assert!(agreement.begins(7, 0) && agreement.begins(7, 1));
    agreement.give_up();
    // The other rank is behind: it follows up to there and no further.
    assert!(agreement.begins(7, 0) && agreement.begins(7, 1));
    assert!(!agreement.begins(7, 2) && !agreement.begins(7, UPDATE));
    let agreement = Agreement::default();
    assert!(agreement.begins(7, 0) && agreement.begins(7, UPDATE));
    agreement.give_up();
    assert!(agreement.begins(7, 3) && agreement.begins(7, UPDATE), "too late for this step");
}

/// What a rank asks in a step: its micro-batches, of which ranks may own different numbers, and the
/// update. It stops at the first refusal of a micro-batch and still asks about the update.
struct Rank {
    rank: u16,
    next: u16,
    began: Vec<u16>,
    done: bool,
}

impl Rank {
    fn new(rank: u16) -> Self {
        Self { rank, next: 0, began: Vec::new(), done: false }
    }

    fn ask(&mut self, agreement: &Agreement, ticket: u64) {
        let number = if self.next < 4 + self.rank { self.next } else { UPDATE };
        if agreement.begins(ticket, number) {
            self.began.push(number);
        }
        self.next += 1;
        self.done = number == UPDATE;
    }
}

/// All ranks made the update, or all ranks the same micro-batches and no update.
fn agree(ranks: &[Rank]) -> bool {
    let updates = ranks.iter().filter(|rank| rank.began.last() == Some(&UPDATE)).count();
    if updates > 0 {
        return updates == ranks.len() && ranks.iter().all(|r| r.began.len() == r.next as usize);
    }
    let common = ranks.iter().map(|rank| rank.began.len()).max().unwrap_or(0);
    ranks.iter().all(|rank| rank.began.len() == common.min(4 + rank.rank as usize))
}

proptest! {
    #[test]
    fn ranks_agree_in_any_order(seed in any::<u64>(), steps in 1u64..4, when in 0u64..40) {
        let (agreement, mut random) = (Agreement::default(), Random::new(seed));
        let mut asked = 0;
        for ticket in 0..steps {
            let mut ranks: Vec<Rank> = (0..3).map(Rank::new).collect();
            while let Some(open) = ranks.iter().position(|rank| !rank.done) {
                if asked == when {
                    agreement.give_up();
                }
                let any = random.below(3) as usize;
                let rank = if ranks[any].done { open } else { any };
                ranks[rank].ask(&agreement, ticket);
                asked += 1;
            }
            prop_assert!(agree(&ranks));
            let updated = ranks[0].began.last() == Some(&UPDATE);
            prop_assert!(updated || agreement.gives_up(), "nobody asked for the end");
            if asked > when && !updated {
                break;
            }
        }
    }
}

#[test]
fn threads_agree_through_several_steps() {
    const RANKS: u16 = 3;
    for round in 0..300u64 {
        let agreement = Arc::new(Agreement::default());
        let barrier = Arc::new(Barrier::new(usize::from(RANKS)));
        let ranks: Vec<_> = (0..RANKS)
            .map(|rank| {
                let (agreement, barrier) = (agreement.clone(), barrier.clone());
                thread::spawn(move || {
                    let mut steps = Vec::new();
                    for ticket in 0..3 {
                        // As the supervisor does: a step begins when all have ended the last.
                        barrier.wait();
                        let mut one = Rank::new(rank);
                        while !one.done {
                            one.ask(&agreement, round + ticket);
                        }
                        steps.push(one);
                    }
                    steps
                })
            })
            .collect();
        for _ in 0..round % 7 {
            thread::yield_now();
        }
        agreement.give_up();
        let mut ranks: Vec<Vec<Rank>> = ranks.into_iter().map(|r| r.join().unwrap()).collect();
        for _ in 0..3 {
            let step: Vec<Rank> = ranks.iter_mut().map(|steps| steps.remove(0)).collect();
            assert!(agree(&step), "{:?}", step.iter().map(|r| &r.began).collect::<Vec<_>>());
        }
    }
}
