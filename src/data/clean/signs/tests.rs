//! Tests of `signs` on worked examples.

use super::{TERMINAL, is_punctuation, is_terminal};

#[test]
fn signs_are_told_apart() {
    assert!(".!?。؟।\u{1da88}".chars().all(is_terminal));
    assert!(!",;:…a \u{1da89}".chars().any(is_terminal));
    assert!(".,_…—”\u{7f}\u{85}".chars().all(is_punctuation));
    assert!(!"a1é \n\t漢°".chars().any(is_punctuation));
    assert!(TERMINAL.windows(2).all(|pair| pair[0].1 < pair[1].0));
    assert_eq!(TERMINAL.iter().map(|(first, last)| last - first + 1).sum::<u32>(), 156);
}
