//! All ranks agree, however they interleave with whoever ends the run.

use std::sync::{Arc, Barrier};
use std::thread;

use crate::agreement::{Agreement, UPDATE};

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

#[test]
fn ranks_agree_in_any_interleaving() {
    const RANKS: usize = 3;
    let mut given_up = 0;
    for round in 0..300 {
        let agreement = Arc::new(Agreement::default());
        let barrier = Arc::new(Barrier::new(RANKS + 1));
        let ranks: Vec<_> = (0..RANKS)
            .map(|rank| {
                let (agreement, barrier) = (agreement.clone(), barrier.clone());
                thread::spawn(move || {
                    barrier.wait();
                    // Ranks may own different numbers of micro-batches.
                    let numbers = (0..4 + rank as u16).chain([UPDATE]);
                    let began: Vec<u16> =
                        numbers.filter(|&number| agreement.begins(round, number)).collect();
                    began
                })
            })
            .collect();
        barrier.wait();
        for _ in 0..round % 7 {
            thread::yield_now();
        }
        agreement.give_up();
        let began: Vec<Vec<u16>> = ranks.into_iter().map(|rank| rank.join().unwrap()).collect();
        let updates = began.iter().filter(|b| b.last() == Some(&UPDATE)).count();
        assert!(updates == 0 || updates == RANKS, "{began:?}");
        if updates == 0 {
            given_up += 1;
            let common = began.iter().map(Vec::len).max().unwrap();
            for (rank, began) in began.iter().enumerate() {
                assert_eq!(began.len(), common.min(4 + rank), "{began:?}");
            }
        } else {
            assert!(began.iter().enumerate().all(|(rank, b)| b.len() == 5 + rank), "{began:?}");
        }
    }
    assert!(given_up > 0, "nobody was ever interrupted");
}
