//! Lines and paragraphs.

use super::UnitKind;

fn compared(unit: UnitKind, min_bytes: usize, text: &str) -> Vec<Option<&str>> {
    let whole: String = unit.units(text, min_bytes).map(|(whole, _)| whole).collect();
    assert_eq!(whole, text, "units are without gaps");
    unit.units(text, min_bytes).map(|(_, compared)| compared).collect()
}

#[test]
fn texts_are_cut_at_line_breaks_or_empty_lines() {
    let text = "one\n two \n\n\n three\nfour\n \t\nfive";
    let lines =
        [Some("one"), Some("two"), None, None, Some("three"), Some("four"), None, Some("five")];
    assert_eq!(compared(UnitKind::Line, 0, text), lines);
    let paragraphs = [Some("one\n two"), Some("three\nfour"), Some("five")];
    assert_eq!(compared(UnitKind::Paragraph, 0, text), paragraphs);
    assert_eq!(compared(UnitKind::Line, 4, "abc\nabcd\n"), [None, Some("abcd")]);
    for text in ["", "\n", "\n\n\n", "a", "a\n", "a\n\n", "\n\na"] {
        compared(UnitKind::Paragraph, 1, text);
        compared(UnitKind::Line, 1, text);
    }
}
