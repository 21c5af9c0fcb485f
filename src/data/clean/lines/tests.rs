//! Tests of `lines` on worked examples.

use super::{between_line_feeds, lines_of};

#[test]
fn lines_end_at_every_sign_that_ends_one() {
    let of = |text| lines_of(text).collect::<Vec<_>>();
    assert_eq!(of("a\nb\r\nc\rd\u{2028}e\u{85}f\u{b}g"), ["a", "b", "c", "d", "e", "f", "g"]);
    assert_eq!(of("\n\na\n"), ["", "", "a"]);
    assert_eq!(of(""), [""; 0]);
    assert_eq!(of("ä\u{20ac}"), ["ä\u{20ac}"]);
}

#[test]
fn pieces_lie_between_runs() {
    let of = |text, least| between_line_feeds(text, least).collect::<Vec<_>>();
    assert_eq!(of("a\n\n\nb\nc\n\nd", 2), ["a", "b\nc", "d"]);
    assert_eq!(of("a\n\n\nb\nc\n", 1), ["a", "b", "c", ""]);
    assert_eq!(of("\na", 1), ["", "a"]);
    assert_eq!(of("", 1), [""]);
}
