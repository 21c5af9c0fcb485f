//! Tests of `fineweb_quality` on worked examples.

use super::FinewebQuality;
use crate::data::clean::testing::{dropped, kept};

#[test]
fn every_threshold_has_two_sides() {
    let step = FinewebQuality::default();
    let line = |i: usize, end: &str| format!("line number {i} of some that are long enough{end}\n");
    let lines = |ended: usize, all: usize| {
        (0..all).map(|i| line(i, if i < ended { "." } else { "," })).collect::<String>()
    };
    kept(&step, &lines(3, 25));
    dropped(&step, &lines(2, 25), "few_terminal_lines");
    kept(&step, &lines(4, 25).replace("long enough.", "long enough。"));
    let short = |n: usize| {
        let short = |i: usize| format!("{:030}\n", i) + "   \n";
        lines(33, 33) + &(0..n).map(short).collect::<String>()
    };
    let wide = FinewebQuality { max_line_feed_ratio: 1.0, ..step.clone() };
    kept(&wide, &short(67));
    dropped(&wide, &short(68), "short_lines");
    kept(&wide, &short(68).replace("000000", "0000000"));
    // 20 characters again of 2000, then of 1999: blank ends count, line feeds do not.
    let again =
        |n: usize| format!("{}\n{}.\n{}.", "x ".repeat(n / 2), "y".repeat(19), "y".repeat(19));
    kept(&step, &again(1960));
    dropped(&step, &again(1958), "duplicate_characters");
    let list = |feeds: usize| "a".repeat(40) + " b c d e f g h i j." + &"\n".repeat(feeds);
    kept(&step, &list(3));
    dropped(&step, &list(4), "list");
    dropped(&step, " \n \n", "empty");
}
