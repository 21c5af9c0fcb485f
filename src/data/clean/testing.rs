//! What the tests of all steps ask: is this text kept, or dropped for this reason.

use super::{Cleaner, Document, Step, Verdict};

/// The text that is left, and the verdict.
pub(super) fn result(step: &dyn Step, text: &str) -> (String, Verdict) {
    let mut document = Document::new(text);
    let verdict = step.open().unwrap().apply(&mut document);
    (document.text().to_owned(), verdict)
}

/// The text is kept; what it became.
#[track_caller]
pub(super) fn kept(step: &dyn Step, text: &str) -> String {
    let (left, verdict) = result(step, text);
    assert_eq!(verdict, Verdict::Keep, "{text}");
    left
}

/// The text is dropped.
#[track_caller]
pub(super) fn dropped(step: &dyn Step, text: &str, reason: &str) {
    let (_, verdict) = result(step, text);
    assert!(matches!(verdict, Verdict::Drop(given) if given == reason), "{verdict:?}: {text}");
}

/// A chain of one step, opened once.
pub(super) fn opened(step: &dyn Step) -> Box<dyn Cleaner> {
    step.open().unwrap()
}
