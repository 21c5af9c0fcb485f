//! Tests of `block_words` on worked examples.

use super::BlockWords;
use crate::data::clean::Step;
use crate::data::clean::testing::{dropped, kept};

#[test]
fn whole_words_are_blocked_and_parts_of_words_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("words.txt");
    std::fs::write(&file, "# a list\nBad Word\n\n").unwrap();
    let words = vec!["evil".to_owned()];
    let step = BlockWords { words, file: Some(file), ..BlockWords::default() };
    assert!(step.validate().is_ok());
    dropped(&step, "so EVIL, it is", "blocked_word");
    dropped(&step, "a bad word", "blocked_word");
    kept(&step, "devils, a_evil, bad words");
    dropped(&BlockWords { whole_words: false, ..step.clone() }, "devils", "blocked_word");
    let two = BlockWords { max_matches: 2, ..step };
    kept(&two, "evil evil");
    dropped(&two, "evil evil evil", "blocked_word");
    assert!(BlockWords::default().validate().unwrap_err().starts_with("words: expected"));
}
