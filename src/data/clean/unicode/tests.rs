//! Repair, controls and forms against worked examples.

use super::{Form, Unicode};
use crate::data::clean::{Cleaner, Document};

fn of(step: &Unicode, text: &str) -> String {
    let mut document = Document::new(text);
    step.apply(&mut document);
    assert_eq!(document.take_changed(), document.text() != text);
    document.text().to_owned()
}

#[test]
fn misread_bytes_are_read_again() {
    for (broken, whole) in [
        ("cafÃ© au lait", "café au lait"),
        ("itâ€™s â€œfineâ€\u{9d}", "it’s “fine”"),
        ("10Â°C", "10°C"),
        ("ðŸ˜€!", "😀!"),
        ("fran\u{c3}\u{a7}ais", "français"),
    ] {
        assert_eq!(of(&Unicode::default(), broken), whole);
        let as_it_is = Unicode { repair: false, controls: false, form: Form::Nfc };
        assert_eq!(of(&as_it_is, broken), broken);
    }
    // What may be meant stays.
    for text in ["«CAFÉ»", "LÂ»", "São Tomé", "Ã", "âge", "Ð¿", "ÃÃ", "mañana", "pâte"]
    {
        assert_eq!(of(&Unicode::default(), text), text);
    }
}

#[test]
fn controls_go_and_blanks_are_uniform() {
    let text = "\u{feff}a\r\nb\rc\u{a0}d\u{7}e\u{200b}f\tg\u{2028}h";
    assert_eq!(of(&Unicode::default(), text), "a\nb\nc def\tg\nh");
    let left = Unicode { controls: false, ..Unicode::default() };
    assert_eq!(of(&left, text), text);
}

#[test]
fn forms_are_those_of_unicode() {
    let with = |form| Unicode { form, ..Unicode::default() };
    assert_eq!(of(&with(Form::None), "e\u{301} ﬁ"), "e\u{301} ﬁ");
    assert_eq!(of(&with(Form::Nfc), "e\u{301} ﬁ"), "é ﬁ");
    assert_eq!(of(&with(Form::Nfkc), "e\u{301} ﬁ"), "é fi");
}
