//! Tests of the hand-written splitters against the regular expressions they stand for.

use proptest::prelude::{Strategy, proptest};

use super::{Pattern, Rule, Splitter};

const BY_HAND: [Pattern; 5] =
    [Pattern::Gpt2, Pattern::Cl100k, Pattern::Llama3, Pattern::Qwen2, Pattern::O200k];

fn words(splitter: &Splitter, text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let word = |word: &[u8]| words.push(String::from_utf8(word.to_vec()).unwrap());
    splitter.words(text, word).unwrap();
    words
}

fn reference(pattern: &Pattern) -> Splitter {
    let splitter = Splitter::new(&Pattern::Regex(pattern.regex().to_owned())).unwrap();
    assert!(matches!(splitter.rule, Rule::Regex(_)));
    splitter
}

fn check(text: &str) {
    for pattern in BY_HAND {
        let splitter = Splitter::new(&pattern).unwrap();
        assert!(!matches!(splitter.rule, Rule::Regex(..)));
        let expected = words(&reference(&pattern), text);
        assert_eq!(words(&splitter, text), expected, "{pattern:?} of {text:?}");
    }
    // Pieces of what is cut where it may be cut have the same words.
    for (_, pattern) in Pattern::NAMES {
        let splitter = Splitter::new(&pattern).unwrap();
        let (mut head, mut tail) = (text, Vec::new());
        while let Some(at) = splitter.last_cut(head) {
            tail.insert(0, &head[at..]);
            head = &head[..at];
        }
        tail.insert(0, head);
        let pieces: Vec<String> = tail.iter().flat_map(|piece| words(&splitter, piece)).collect();
        assert_eq!(pieces, words(&splitter, text), "{pattern:?} of {text:?} in pieces");
    }
}

#[test]
fn corners_are_cut_like_the_patterns() {
    for text in [
        "",
        " ",
        "  ",
        "\n",
        "a",
        " a  b\n\n c\n  \n",
        "it's we'll they're I've I'm he'd don't 'tis ''s 'S 'll'l 'r 'v",
        "IT'S WE'LL THEY'RE I'VE x'\u{17f} 'sabc 'xyz \"'s .abc ..abc",
        "a\u{b}b\u{1c}c\td\r\ne",
        "1234 x12 12x !?12 _a_ ---\n\n\n--- \u{bd}\u{2167}1",
        "caf\u{e9} a\nb\u{a0}\nc\n\u{2003}d\n\n\u{e9}e\nf\n",
        "a\n\u{e9}\nb\nc\n\u{e9}",
        "tab\t\tx \t y\n\tz",
        "end  \n  ",
        "x \u{301}\u{4e2d}\u{56fd}\u{301} \u{1f600}!\n\n\n",
        "\u{4e2d}\u{3002}\n\u{56fd}\u{3002}\n\n\u{4e2d}1\u{3002}\u{56fd}",
        "aB ABc ABC'S \u{4e2d}AB \u{301}AB A\u{301}B'll//\n/x \u{1c5}x \u{2b0}Aa 'Aa ''Aa",
    ] {
        check(text);
    }
}

#[test]
fn text_between_matches_is_not_lost() {
    let splitter = Splitter::new(&Pattern::parse("[a-z]+").unwrap()).unwrap();
    assert_eq!(words(&splitter, "..ab 1cd!"), ["..", "ab", " 1", "cd", "!"]);
    assert_eq!(splitter.last_cut("a b c"), None);
}

#[test]
fn patterns_are_known_by_name_and_by_spelling() {
    for (name, pattern) in Pattern::NAMES {
        assert_eq!(Pattern::parse(name), Ok(pattern.clone()));
        assert_eq!(Pattern::parse(pattern.regex()), Ok(pattern));
    }
    for (spelling, pattern) in super::super::pattern::SPELLINGS {
        assert_eq!(Pattern::parse(spelling).as_ref(), Ok(pattern));
        let spelled = Splitter::new(&Pattern::Regex((*spelling).to_owned())).unwrap();
        for text in ["it's 1234, x\n  \n", " '\u{17f} A'LL \n"] {
            assert_eq!(words(&spelled, text), words(&reference(pattern), text), "{spelling}");
        }
    }
    assert!(Pattern::parse("gpt3").unwrap_err().contains("expected gpt2, cl100k"));
    assert!(Pattern::parse("(a").unwrap_err().contains("regular expression, got \"(a\""));
}

proptest! {
    #[test]
    fn any_text_is_cut_like_the_patterns(text in alphabet()) {
        check(&text);
    }
}

/// Texts of the characters that matter to the patterns.
fn alphabet() -> impl Strategy<Value = String> {
    "[a-cA-C'stlvremdSL0-2 \n\t\r\u{b}\u{a0}\u{3000}!_/\u{e9}\u{4e2d}\u{301}\u{17f}\u{bd}\u{1c5}\
     \u{2b0}\u{3002}]{0,40}"
}

#[test]
fn text_without_spaces_can_be_cut() {
    for (name, pattern) in Pattern::NAMES {
        let splitter = Splitter::new(&pattern).unwrap();
        for text in ["\u{4e2d}\u{56fd}\u{3002}\n", "\u{4e2d}\u{56fd}\u{3002}", "ab\"12\":{\"x\"},"]
        {
            let text = text.repeat(100);
            let at = splitter.last_cut(&text).unwrap_or_else(|| panic!("{name} of {text}"));
            assert!(text.len() - at < 16, "{name}: {at} of {}", text.len());
        }
        assert_eq!(splitter.last_cut(&"a".repeat(99)), None);
    }
}

#[test]
fn a_run_of_white_space_has_no_limit() {
    // More than the engine's own million steps.
    let text = format!("a{}b", " ".repeat(3_000_000));
    for pattern in BY_HAND {
        let by_hand = words(&Splitter::new(&pattern).unwrap(), &text);
        assert_eq!(by_hand.iter().map(String::len).collect::<Vec<_>>(), [1, 2_999_999, 2]);
        // The engine does it in parts.
        let by_engine = words(&reference(&pattern), &text);
        assert!(by_engine.concat() == text && by_engine.len() < 30, "{pattern:?}");
    }
}
