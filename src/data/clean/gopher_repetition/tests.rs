//! Tests of `gopher_repetition` on worked examples.

use super::GopherRepetition;
use crate::data::clean::testing::{dropped, kept};

/// So many different words of six letters.
fn words(range: std::ops::Range<usize>) -> String {
    range.map(|i| format!("w{i:05} ")).collect()
}

#[test]
fn paragraphs_and_lines_have_two_sides() {
    let step = GopherRepetition::default();
    let with = |again: usize, all: usize, end: &str, long: &str| {
        let line = |i| {
            if i < again { format!("same{long}{end}") } else { words(i * 9..i * 9 + 9) + end }
        };
        (0..=all).map(|i| line(i.max(1) - 1)).collect::<String>()
    };
    // 3 of 10 paragraphs occurred before, then 4 of 11, short ones.
    kept(&step, with(3, 9, "\n\n", "").trim_end());
    dropped(&step, with(4, 10, "\n\n", "").trim_end(), "duplicate_paragraphs");
    kept(&step, with(3, 9, "\n", "").trim_end());
    dropped(&step, with(4, 10, "\n", "").trim_end(), "duplicate_lines");
    let long = |n: usize, end: &str| {
        let unique = words(0..100);
        let (text, piece) = (unique.trim_end().to_owned() + end, "x".repeat(n));
        format!("{text}{piece}{end}{piece}{end}a{end}b{end}c{end}d")
    };
    // n of 2n + 699 + 6 ends + 4 characters.
    kept(&step, &long(236, "\n\n"));
    dropped(&step, &long(240, "\n\n"), "duplicate_paragraph_characters");
    kept(&step, &long(235, "\n"));
    dropped(&step, &long(238, "\n"), "duplicate_line_characters");
}

#[test]
fn the_most_frequent_ngrams_have_two_sides() {
    let only = |at: usize, share: f64| {
        let mut max_top_ngram = vec![1.0; 3];
        max_top_ngram[at] = share;
        GopherRepetition { max_top_ngram, max_duplicate_ngrams: vec![], ..Default::default() }
    };
    // "ab cd" twice among 100 words of 6 letters and their blanks.
    let text = format!("{}ab cd {}ab cd", words(0..50), words(50..100));
    let share = 10.0 / text.chars().count() as f64;
    kept(&only(0, share + 1e-9), &text);
    dropped(&only(0, share - 1e-9), &text, "top_2_gram");
    // Of three and four words each occurs once: the first counts.
    for (at, reason) in [(1, "top_3_gram"), (2, "top_4_gram")] {
        let share = (7 * (at + 2) - 1) as f64 / text.chars().count() as f64;
        kept(&only(at, share + 1e-9), &text);
        dropped(&only(at, share - 1e-9), &text, reason);
    }
    let defaults = GopherRepetition::default();
    dropped(&defaults, &"ab cd ".repeat(50), "top_2_gram");
}

#[test]
fn ngrams_that_occurred_before_have_two_sides() {
    let (first, second) = (words(0..30), words(30..100));
    let text = format!("{first}{second}{first}");
    let all = text.chars().count() as f64;
    for n in 5..=10 {
        let only = |share: f64| {
            let mut max_duplicate_ngrams = vec![1.0; 6];
            max_duplicate_ngrams[n - 5] = share;
            let max_top_ngram = vec![];
            GopherRepetition { max_top_ngram, max_duplicate_ngrams, ..Default::default() }
        };
        // Whole n-grams that fit into the 30 words that come again.
        let again = (30 / n * n * 6) as f64;
        kept(&only(again / all + 1e-9), &text);
        dropped(&only(again / all - 1e-9), &text, &format!("duplicate_{n}_grams"));
    }
}
