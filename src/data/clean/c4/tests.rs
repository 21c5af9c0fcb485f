//! Tests of `c4` on worked examples.

use super::{C4, C4Paragraphs};
use crate::data::clean::testing::{dropped, kept};

const FIVE: &str = "One is here. Two is here! Three is here?\nFour is \"here\". Five is here.";

#[test]
fn lines_are_dropped_for_every_reason_and_not_without() {
    let step = C4::default();
    assert_eq!(kept(&step, FIVE), FIVE);
    let left = |line: &str| kept(&step, &format!("{FIVE}\n{line}"));
    let (stays, goes) = (|line: &str| format!("{FIVE}\n{line}"), FIVE);
    assert_eq!(left("  It ends with words. "), stays("It ends with words."));
    assert_eq!(left("It ends with words"), goes);
    assert_eq!(left("It ends with dots..."), goes);
    assert_eq!(left("Three words here."), stays("Three words here."));
    assert_eq!(left("Two words."), goes);
    let word = |n: usize| format!("A word of {}.", "x".repeat(n - 1));
    assert_eq!(left(&word(1000)), stays(&word(1000)));
    assert_eq!(left(&word(1001)), goes);
    assert_eq!(left("Enable JavaScript in it."), goes);
    assert_eq!(left("This site USES COOKIES today."), goes);
    assert_eq!(left("This site eats cookies today."), stays("This site eats cookies today."));
    assert_eq!(left("So it[12] is[edit][citation needed] [a]."), stays("So it is [a]."));
    let all = C4 {
        terminal_punctuation: false,
        min_words_per_line: 0,
        max_word_length: 5000,
        citations: false,
        javascript: false,
        policies: false,
        ..C4::default()
    };
    let lines = format!("{FIVE}\nno end\ntwo...\n{}\nit[1] uses cookies javascript", word(2000));
    assert_eq!(kept(&all, &lines), lines);
}

#[test]
fn documents_are_dropped_for_every_reason_and_not_without() {
    let step = C4::default();
    dropped(&step, FIVE.strip_suffix(" Five is here.").unwrap(), "few_sentences");
    kept(&C4 { min_sentences: 6, ..C4::default() }, &format!("{FIVE} And six."));
    dropped(&C4 { min_sentences: 6, ..C4::default() }, FIVE, "few_sentences");
    let lorem = format!("{FIVE}\nThis is Lorem Ipsum again.");
    dropped(&step, &lorem, "lorem_ipsum");
    kept(&C4 { lorem_ipsum: false, ..C4::default() }, &lorem);
    let bracket = format!("{FIVE}\nIt is a {{ here.");
    dropped(&step, &bracket, "curly_bracket");
    kept(&C4 { curly_bracket: false, ..C4::default() }, &bracket);
    // A line that was dropped before says nothing.
    kept(&step, &format!("{FIVE}\nlorem ipsum {{ without an end"));
}

#[test]
fn three_long_lines_have_two_sides() {
    let lines = |n: usize| format!("{0}\nshort\n{0}\n{1}", "é".repeat(200), "x".repeat(n));
    kept(&C4Paragraphs::default(), &lines(200));
    dropped(&C4Paragraphs::default(), &lines(199), "few_paragraphs");
}
