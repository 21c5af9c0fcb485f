//! Words in vectors are the words one by one.

use super::words;
use crate::cpu::isa::Isa;
use crate::random::{RandomStream, Site};

#[test]
fn they_are_the_words_one_by_one() {
    let stream = RandomStream { seed: 5, site: Site::new("here") };
    // Heads and tails of a block, and the edge where the key changes.
    let edge = 4u64 << 32;
    for first in [0, 1, 3, 4, 4 * 16 - 1, 12_345, edge - 70, edge - 3, edge + 1] {
        for length in [0, 1, 2, 5, 64, 131, 300] {
            for isa in Isa::supported() {
                let mut out = vec![0; length];
                words(&stream, isa, 7, first, &mut out);
                for (&word, element) in out.iter().zip(first..) {
                    assert_eq!(word, stream.word(7, 0, element), "{isa} {first} {element}");
                }
            }
        }
    }
}
