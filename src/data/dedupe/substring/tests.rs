//! Passages that come again.

use proptest::prelude::{prop_assert, proptest};

use super::Passages;
use crate::data::dedupe::passages::without;

fn left(texts: &[&str], length: usize) -> Vec<String> {
    let mut passages = Passages::default();
    texts.iter().for_each(|text| passages.push(text).unwrap());
    let ranges = passages.repeated(length);
    let cut = |(text, ranges): (&&str, &Vec<_>)| {
        let mut left = String::new();
        without(text, ranges, &mut left);
        left
    };
    texts.iter().zip(&ranges).map(cut).collect()
}

#[test]
fn the_first_occurrence_stays() {
    let boiler = "all rights reserved by us";
    let texts = [format!("x {boiler} y"), "nothing here".to_owned(), format!("{boiler}, again")];
    let texts = texts.each_ref().map(String::as_str);
    assert_eq!(left(&texts, 20), ["x all rights reserved by us y", "nothing here", ", again"]);
    assert_eq!(left(&texts, 26), texts);
    assert_eq!(left(&[boiler, boiler], 10), [boiler, ""]);
    // The end of one text and the beginning of the next are no passage.
    assert_eq!(left(&["abcd", "efgh", "abcdefgh"], 8), ["abcd", "efgh", "abcdefgh"]);
}

#[test]
fn runs_and_periods_keep_one_passage() {
    assert_eq!(left(&[&"a".repeat(100)], 10), ["a".repeat(10)]);
    assert_eq!(left(&[&"abc".repeat(20)], 6), ["abcabc"]);
}

#[test]
fn no_character_is_cut() {
    let texts = ["\u{e9}\u{4e2d}\u{56fd}\u{4e2d}a", "\u{e8}\u{4e2d}\u{56fd}\u{4e2d}b"];
    for length in 1..12 {
        for text in left(&texts, length) {
            assert!(text.chars().all(|c| "\u{e9}\u{e8}\u{4e2d}\u{56fd}ab".contains(c)), "{text}");
        }
    }
    assert_eq!(left(&texts, 9), [texts[0], "\u{e8}b"]);
}

proptest! {
    #[test]
    fn nothing_is_left_twice(
        texts in proptest::collection::vec("[ab]{0,30}", 1..6),
        length in 3..8usize,
    ) {
        // What is left of a text may meet where something was cut out, so each passage that stood
        // whole in what is left is looked for in the texts before as they were.
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        for (number, left) in left(&texts, length).iter().enumerate() {
            prop_assert!(left.len() <= texts[number].len());
            let before = texts[..number].iter().any(|before| before.contains(texts[number]));
            if before && texts[number].len() >= length {
                prop_assert!(left.is_empty(), "{left} of {}", texts[number]);
            }
        }
    }
}
