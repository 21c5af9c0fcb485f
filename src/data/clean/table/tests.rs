//! Tests of `table` on worked examples.

use super::{Table, Top};

#[test]
fn what_was_seen_is_known_and_the_first_of_the_most_frequent_is_the_top() {
    let mut table = Table::default();
    for _ in 0..2 {
        table.clear(3);
        assert_eq!(
            [0, 1, 5, 5, 0].map(|hash| table.insert(hash)),
            [true, false, true, false, false]
        );
    }
    let top = |hashes: &[u64]| Table::default().top(hashes.iter().copied());
    assert_eq!(top(&[]), Top::default());
    assert_eq!(top(&[7, 8, 9]), Top { count: 1, first: 0 });
    assert_eq!(top(&[7, 8, 9, 9, 8]), Top { count: 2, first: 1 });
    let many: Vec<u64> = (0..1000).map(|i| i % 300 + 2).collect();
    assert_eq!(top(&many), Top { count: 4, first: 0 });
}
