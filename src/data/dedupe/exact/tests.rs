//! Which texts are later copies.

use super::{Repeated, fingerprint};

#[test]
fn the_first_of_equal_texts_stays() {
    let folder = tempfile::tempdir().unwrap();
    let texts = ["a", "b", "a", "", "A", "b", "a", ""];
    let mut repeated = Repeated::new(&folder.path().join("spill"));
    for (number, text) in (0..).zip(texts) {
        repeated.push(fingerprint(text), number).unwrap();
    }
    for threads in [1, 2, 8] {
        let later = repeated.later(threads).unwrap();
        let found: Vec<u64> = (0..9).filter(|&number| later.contains(number)).collect();
        assert_eq!(found, [2, 5, 6, 7]);
        assert_eq!(later.count(), 4);
    }
}
