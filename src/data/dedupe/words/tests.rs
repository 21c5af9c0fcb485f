//! What differs between copies does not count.

use super::{hash_words, shingles};

fn words(text: &str) -> Vec<u64> {
    let mut words = Vec::new();
    hash_words(text, &mut words);
    words
}

#[test]
fn case_accents_punctuation_and_digits_do_not_count() {
    let same = words("the cafe opened in 0 for 0 guests");
    for text in [
        "The Caf\u{e9} opened in 1998, for 3.50 guests.",
        "THE  CAFE\u{301}\topened (in 7) for 12\u{661}? guests!",
        "\"the\"\ncafe -- opened / in 0 for 0 guests",
    ] {
        assert_eq!(words(text), same, "{text}");
    }
    for text in ["the cafe opened in 0 for 0 guest", "the cafe opened in 0 0 for guests"] {
        assert_ne!(words(text), same, "{text}");
    }
    assert!(words(" .,\n\u{3002}\u{301}").is_empty());
}

#[test]
fn scripts_without_spaces_give_a_word_for_each_character() {
    assert_eq!(words("\u{4e2d}\u{56fd}\u{3002}\u{4eba}").len(), 3);
    assert_eq!(words("ab\u{4e2d}cd").len(), 3);
    assert_eq!(words("\u{3042}\u{30ab}\u{e01}\u{e34}").len(), 3);
}

#[test]
fn shingles_are_those_of_their_words_wherever_they_stand() {
    let all = |text: &str| {
        let mut found = Vec::new();
        shingles(&words(text), 3, |hash| found.push(hash));
        found
    };
    let (one, other) = (all("a b c d e"), all("x y a b c d"));
    assert_eq!((one.len(), other.len()), (3, 4));
    assert_eq!(one[..2], other[2..]);
    assert!(all("a b").is_empty());
    assert_ne!(all("a b c"), all("c b a"));
}
