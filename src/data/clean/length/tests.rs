//! Both limits, counted in characters.

use super::{Length, Verdict};
use crate::data::clean::{Cleaner, Document, Step};

#[test]
fn both_limits_count_characters() {
    let step = Length { min_characters: 3, max_characters: 5 };
    let of = |text| step.apply(&mut Document::new(text));
    let euros = ["\u{20ac}\u{20ac}", "\u{20ac}\u{20ac}\u{20ac}"];
    assert_eq!(euros.map(of), [Verdict::Drop("too_short"), Verdict::Keep]);
    assert_eq!(["12345", "123456"].map(of), [Verdict::Keep, Verdict::Drop("too_long")]);
    let wrong = Length { min_characters: 9, max_characters: 5 };
    assert_eq!(wrong.validate().unwrap_err(), "max_characters: expected at least 9, got 5");
}
