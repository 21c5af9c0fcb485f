//! Tests of `gopher_quality` on worked examples.

use super::GopherQuality;
use crate::data::clean::testing::{dropped, kept};

/// 60 words of 4 letters and the two stop words that are wanted.
fn good() -> String {
    "the and ".to_owned() + &"word ".repeat(58)
}

#[test]
fn every_threshold_has_two_sides() {
    let step = GopherQuality::default();
    let words = |n: usize| "the and ".to_owned() + &"word ".repeat(n - 2);
    kept(&step, &words(50));
    dropped(&step, &words(49), "too_few_words");
    // Signs are no words, but they count where shares are taken.
    dropped(&step, &(words(49) + "!"), "too_few_words");
    let most = GopherQuality { max_words: 60, ..GopherQuality::default() };
    kept(&most, &words(60));
    dropped(&most, &words(61), "too_many_words");
    let lengths = |n: usize| format!("the and {}", format!("{} ", "a".repeat(n)).repeat(48));
    kept(&step, &lengths(3));
    dropped(&step, &(lengths(3) + "to"), "short_words");
    kept(&step, &format!("{} {}", lengths(10), "aaaaaaaaaaaaaaaaa"));
    dropped(&step, &format!("{} {}", lengths(10), "a".repeat(25)), "long_words");
    // 6 of 66 words, 7 of 67: at most a tenth.
    kept(&step, &(good() + &"#".repeat(6)));
    dropped(&step, &(good() + &"#".repeat(7)), "hashes");
    kept(&step, &(good() + &"… ".repeat(6) + "word"));
    dropped(&step, &(good() + &"… ".repeat(7) + "word"), "ellipses");
    let lines = |marked: usize, mark: &str, all: usize| {
        let line = |i| if i < marked { format!("{mark}\n") } else { "word\n".to_owned() };
        good() + "\n" + &(1..all).map(|i| line(i - 1)).collect::<String>()
    };
    kept(&step, &lines(9, "- word word word", 10));
    dropped(&step, &lines(10, "\t• word word word", 11), "bullets");
    kept(&step, &lines(3, "word word...", 10));
    dropped(&step, &lines(4, "word word...", 10), "ellipsis_lines");
    kept(&step, &(good() + &"1234 ".repeat(15)));
    dropped(&step, &(good() + &"1234 ".repeat(16)), "few_letters");
    dropped(&step, &("the ".repeat(9) + &"word ".repeat(58)), "few_stop_words");
    dropped(&step, &good().replace("the", "The"), "few_stop_words");
    let twice = GopherQuality { stop_words_distinct: false, ..GopherQuality::default() };
    kept(&twice, &("the the ".to_owned() + &"word ".repeat(58)));
}
