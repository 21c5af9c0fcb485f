//! Signs that end sentences, and signs of punctuation, as the published filters count them.
//!
//! Duty: the characters with Unicode's property Sentence_Terminal, and the list of punctuation
//! that CCNet began and datatrove keeps. Prohibition: no rule.

/// The characters that end a sentence, in order. A full stop of ASCII is one of them.
const TERMINAL: &[(u32, u32)] = &[
    (0x589, 0x589),
    (0x61d, 0x61f),
    (0x6d4, 0x6d4),
    (0x700, 0x702),
    (0x7f9, 0x7f9),
    (0x837, 0x837),
    (0x839, 0x839),
    (0x83d, 0x83e),
    (0x964, 0x965),
    (0x104a, 0x104b),
    (0x1362, 0x1362),
    (0x1367, 0x1368),
    (0x166e, 0x166e),
    (0x1735, 0x1736),
    (0x17d4, 0x17d6),
    (0x17d9, 0x17da),
    (0x1803, 0x1803),
    (0x1809, 0x1809),
    (0x1944, 0x1945),
    (0x1aa8, 0x1aab),
    (0x1b5a, 0x1b5b),
    (0x1b5e, 0x1b5f),
    (0x1b7d, 0x1b7e),
    (0x1c3b, 0x1c3c),
    (0x1c7e, 0x1c7f),
    (0x203c, 0x203d),
    (0x2047, 0x2049),
    (0x2e2e, 0x2e2e),
    (0x2e3c, 0x2e3c),
    (0x2e53, 0x2e54),
    (0x3002, 0x3002),
    (0xa4ff, 0xa4ff),
    (0xa60e, 0xa60f),
    (0xa6f3, 0xa6f3),
    (0xa6f7, 0xa6f7),
    (0xa876, 0xa877),
    (0xa8ce, 0xa8cf),
    (0xa92f, 0xa92f),
    (0xa9c8, 0xa9c9),
    (0xaa5d, 0xaa5f),
    (0xaaf0, 0xaaf1),
    (0xabeb, 0xabeb),
    (0xfe52, 0xfe52),
    (0xfe56, 0xfe57),
    (0xff01, 0xff01),
    (0xff0e, 0xff0e),
    (0xff1f, 0xff1f),
    (0xff61, 0xff61),
    (0x10a56, 0x10a57),
    (0x10f55, 0x10f59),
    (0x10f86, 0x10f89),
    (0x11047, 0x11048),
    (0x110be, 0x110c1),
    (0x11141, 0x11143),
    (0x111c5, 0x111c6),
    (0x111cd, 0x111cd),
    (0x111de, 0x111df),
    (0x11238, 0x11239),
    (0x1123b, 0x1123c),
    (0x112a9, 0x112a9),
    (0x1144b, 0x1144c),
    (0x115c2, 0x115c3),
    (0x115c9, 0x115d7),
    (0x11641, 0x11642),
    (0x1173c, 0x1173e),
    (0x11944, 0x11944),
    (0x11946, 0x11946),
    (0x11a42, 0x11a43),
    (0x11a9b, 0x11a9c),
    (0x11c41, 0x11c42),
    (0x11ef7, 0x11ef8),
    (0x11f43, 0x11f44),
    (0x16a6e, 0x16a6f),
    (0x16af5, 0x16af5),
    (0x16b37, 0x16b38),
    (0x16b44, 0x16b44),
    (0x16e98, 0x16e98),
    (0x1bc9f, 0x1bc9f),
    (0x1da88, 0x1da88),
];

/// Punctuation beside ASCII's and beside [`TERMINAL`].
const PUNCTUATION: &str = "—”％１〈、━【「」，】；“《„’∶´．（–？！：～«〉》）。…►»";

/// Whether a sentence ends with it.
pub(super) fn is_terminal(character: char) -> bool {
    match character {
        '.' | '!' | '?' => true,
        _ if character.is_ascii() => false,
        _ => {
            let code = u32::from(character);
            let at = TERMINAL.partition_point(|&(_, last)| last < code);
            TERMINAL.get(at).is_some_and(|&(first, _)| first <= code)
        }
    }
}

/// Whether it is punctuation or a control.
pub(super) fn is_punctuation(character: char) -> bool {
    match character {
        '\t' | '\n' => false,
        _ if character.is_ascii() => {
            character.is_ascii_punctuation() || character.is_ascii_control()
        }
        '\u{80}'..='\u{9f}' => true,
        _ => is_terminal(character) || PUNCTUATION.contains(character),
    }
}

#[cfg(test)]
mod tests {
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
}
