//! Tests of `line_rules` on worked examples.

use super::Lines;
use crate::data::clean::testing::{dropped, kept};

#[test]
fn every_rule_has_two_sides() {
    let long = "these are the words of a line that stays as it is\n".repeat(40);
    let step = Lines { max_removed_words: 1.0, ..Lines::default() };
    let left = |line: &str| {
        let left = kept(&step, &format!("{long}{line}\nend of it"));
        let inner = left.strip_prefix(&long).unwrap().strip_suffix("end of it").unwrap();
        inner.strip_suffix('\n').map(str::to_owned)
    };
    let stays = |line: &str| assert_eq!(left(line).as_deref(), Some(line));
    let goes = |line: &str| assert_eq!(left(line), None, "{line}");
    // Of characters, blanks too: five of ten, six of ten.
    stays("ABC DEf hi");
    goes("ABC DEF hi");
    stays("12 34");
    goes("1234");
    stays("two words");
    goes("one!");
    goes("3 likes");
    goes("\u{201c}1.2K Followers\u{201d}");
    stays("3 likes of it");
    assert_eq!(left("Sign-in for all").as_deref(), Some("for all"));
    assert_eq!(left("so it is Read more...").as_deref(), Some("so it is"));
    assert_eq!(left("2 items in cart now").as_deref(), Some("2 now"));
    goes("Read more...");
    stays("a b c d e f g h i j Read more...");
    assert_eq!(kept(&step, "a b\n\n\n\nc d"), "a b\n\nc d");
    assert_eq!(kept(&step, "a b\n\nc d\n"), "a b\n\nc d\n");
}

#[test]
fn documents_that_lose_too_much_go() {
    let step = Lines::default();
    let text = |n: usize| "some words are here\n".repeat(n) + "ONE OF THEM\n" + "so it is";
    kept(&step, &text(15));
    dropped(&step, &text(13), "too_much_removed");
    dropped(&step, "ALL\nOF\nIT", "nothing_left");
}
