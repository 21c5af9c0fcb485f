//! Tests of `language` on worked examples.

use super::{Language, middle};
use crate::data::clean::Step;
use crate::data::clean::testing::{dropped, kept};

const ENGLISH: &str =
    "The children went down to the river, because they had heard that there was a boat.";

#[test]
fn languages_are_told_apart_with_a_score() {
    let step = Language::default();
    kept(&step, ENGLISH);
    let german = "Die Kinder gingen zum Fluss hinunter, weil sie gehört hatten, es sei ein Boot.";
    dropped(&step, german, "other_language");
    kept(&Language { keep: vec!["deu".to_owned()], ..Language::default() }, german);
    dropped(&step, "12345 !", "unknown_language");
    let short = "it is in";
    let unsure = whatlang::Detector::new().detect(short).unwrap();
    assert!(unsure.confidence() < 1.0);
    let at = |min_score| Language {
        keep: vec![unsure.lang().code().to_owned()],
        min_score,
        ..Language::default()
    };
    kept(&at(unsure.confidence()), short);
    dropped(&at(unsure.confidence() + 1e-9), short, "unsure_language");
    let wrong = Language { keep: vec!["en".to_owned()], ..Language::default() };
    let problem = wrong.validate().unwrap_err();
    assert!(problem.starts_with("keep: expected codes among ") && problem.contains("eng"));
}

#[test]
fn the_middle_is_whole_characters() {
    assert_eq!(middle("ab\u{20ac}\u{20ac}cd", 4), "\u{20ac}");
    assert_eq!(middle("ab", 9), "ab");
}
