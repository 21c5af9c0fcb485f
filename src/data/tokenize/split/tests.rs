//! Tests of the hand-written splitter against the regular expression it stands for.

use proptest::prelude::{Strategy, proptest};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use super::{Piece, byte_level_words, pieces};

fn reference(text: &str) -> Vec<String> {
    let mut split = PreTokenizedString::from(text);
    ByteLevel::new(false, true, true).pre_tokenize(&mut split).unwrap();
    split
        .get_splits(OffsetReferential::Original, OffsetType::Byte)
        .into_iter()
        .map(|(word, _, _)| word.to_owned())
        .collect()
}

#[test]
fn corners_are_cut_like_the_pattern() {
    for text in [
        "",
        " ",
        "  ",
        "a",
        " a  b\n\n c\n  \n",
        "it's we'll they're I've I'm he'd don't 'tis ''s 'S 'll'l 'r 'v",
        "a\u{b}b\u{1c}c\td\r\ne",
        "1234 x12 12x !?12 _a_ ---\n\n\n---",
        "caf\u{e9} a\nb\u{a0}\nc\n\u{2003}d\n\n\u{e9}e\nf\n",
        "a\n\u{e9}\nb\nc\n\u{e9}",
        "tab\t\tx \t y\n\tz",
    ] {
        assert_eq!(byte_level_words(text).unwrap(), reference(text), "{text:?}");
    }
}

#[test]
fn words_beyond_ascii_are_kept_apart() {
    let text = "plain\nstill plain\n na\u{ef}ve\u{2003} plain again\n";
    let expected = [
        Piece::Ascii("plain\nstill plain"),
        Piece::Other("\n na\u{ef}ve\u{2003} plain"),
        Piece::Ascii(" again\n"),
    ];
    assert_eq!(pieces(text).collect::<Vec<_>>(), expected);
}

proptest! {
    #[test]
    fn any_text_is_cut_like_the_pattern(text in alphabet()) {
        assert_eq!(byte_level_words(&text).unwrap(), reference(&text));
    }
}

/// Texts of the characters that matter to the pattern.
fn alphabet() -> impl Strategy<Value = String> {
    "[a-c'stlvremd0-2 \n\t\r\u{b}\u{a0}\u{3000}!_\u{e9}\u{4e2d}\u{301}]{0,40}"
}
