//! Tests of `words` on worked examples.

use proptest::prelude::{prop_assert_eq, proptest};

use super::{unicode_words, words_of};

fn of(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    words_of(text, &mut words);
    words.iter().map(|word| &text[word.start as usize..word.end as usize]).collect()
}

#[test]
fn words_are_those_of_unicode() {
    assert_eq!(of("Don't  stop, it's 3.14!"), ["Don't", "stop", ",", "it's", "3.14", "!"]);
    assert_eq!(
        of("snake_case __ a.b 1,000;2 x.1"),
        ["snake_case", "__", "a.b", "1,000;2", "x", ".", "1"]
    );
    assert_eq!(of("caf\u{e9}\u{a0}au\tlait\u{3000}"), ["caf\u{e9}", "au", "lait"]);
    assert_eq!(of("漢字と"), ["漢", "字", "と"]);
    assert_eq!(of("a:b 1:2"), ["a:b", "1", ":", "2"]);
    assert_eq!(of(" \n"), [""; 0]);
}

#[test]
fn letters_and_signs_are_known() {
    let mut words = Vec::new();
    words_of("a1 22 ... _ é —", &mut words);
    let known: Vec<_> = words.iter().map(|word| (word.letters, word.signs)).collect();
    let (word, number, sign) = ((true, false), (false, false), (false, true));
    assert_eq!(known, [word, number, sign, sign, sign, sign, word, sign]);
}

proptest! {
    #[test]
    fn the_quick_way_finds_the_same_words(text in "[a-c0-2_.,;:'\"() \n-]{0,24}") {
        let mut quick = Vec::new();
        words_of(&text, &mut quick);
        let mut slow = Vec::new();
        for run in text.split_ascii_whitespace() {
            let first = run.as_ptr() as usize - text.as_ptr() as usize;
            unicode_words(run, first, &mut slow);
        }
        prop_assert_eq!(quick, slow);
    }

    #[test]
    fn words_lie_in_order_inside_the_text(text in "\\PC{0,40}") {
        let mut words = Vec::new();
        words_of(&text, &mut words);
        let mut end = 0;
        for word in words {
            assert!(word.start >= end && word.end > word.start);
            assert!(text.get(word.start as usize..word.end as usize).is_some());
            end = word.end;
        }
    }
}
