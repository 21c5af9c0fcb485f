//! Joins from several threads.

use super::Clusters;
use crate::data::dedupe::words::mixed;

#[test]
fn the_first_stands_for_all_whatever_the_order_and_the_threads() {
    const DOCUMENTS: u32 = 20_000;
    let pairs: Vec<(u32, u32)> = (0..15_000u64)
        .map(|number| {
            let pick = |salt| (mixed(number ^ salt) % u64::from(DOCUMENTS)) as u32;
            (pick(1 << 40), pick(1 << 41))
        })
        .collect();
    // By walking the graph.
    let mut expected: Vec<u32> = (0..DOCUMENTS).collect();
    loop {
        let before = expected.clone();
        for &(one, other) in &pairs {
            let first = expected[one as usize].min(expected[other as usize]);
            (expected[one as usize], expected[other as usize]) = (first, first);
        }
        if before == expected {
            break;
        }
    }
    for threads in [1, 2, 8] {
        let clusters = Clusters::new(DOCUMENTS);
        std::thread::scope(|scope| {
            for part in pairs.chunks(pairs.len().div_ceil(threads)) {
                let clusters = &clusters;
                scope.spawn(move || {
                    part.iter().rev().for_each(|&(one, other)| clusters.join(one, other))
                });
            }
        });
        let found: Vec<u32> = (0..DOCUMENTS).map(|document| clusters.first(document)).collect();
        assert!(found == expected, "{threads} threads");
    }
}
