//! Tests of `boilerplate` on worked examples.

use super::Boilerplate;
use crate::data::clean::{Document, Step, Survey, Verdict};

fn of(step: &Boilerplate, texts: &[String]) -> Vec<(String, Verdict)> {
    let mut visit = |see: &mut dyn FnMut(&str)| {
        texts.iter().for_each(|text| see(text));
        Ok(())
    };
    // As much text as takes three passes.
    let cleaner = step.open_after(3 << 30, &mut visit).unwrap();
    let apply = |text: &String| {
        let mut document = Document::new(text);
        let verdict = cleaner.apply(&mut document);
        (document.text().to_owned(), verdict)
    };
    texts.iter().map(apply).collect()
}

#[test]
fn lines_in_many_documents_go_and_lines_in_few_stay() {
    let step = Boilerplate { max_documents: 3, ..Boilerplate::default() };
    assert!(step.survey().is_some());
    let text = |i: usize| {
        let three = if i < 3 { "in three of them\n" } else { "" };
        let four = if i < 4 { "  in four of them\n" } else { "" };
        format!("{three}text of number {i}\n{four}all here\nnumber {i} ends")
    };
    let texts: Vec<String> = (0..6).map(text).collect();
    let cleaned = of(&step, &texts);
    assert_eq!(cleaned[0].0, "in three of them\ntext of number 0\nall here\nnumber 0 ends");
    assert!(
        cleaned
            .iter()
            .zip(&texts)
            .all(|((left, _), text)| { *left == text.replace("  in four of them\n", "") })
    );
    // Twice in one document is in one document.
    let twice = vec!["twice in this one\n".repeat(4), "and others".to_owned()];
    assert_eq!(of(&step, &twice)[0].0, twice[0]);
}

#[test]
fn documents_that_lose_too_much_go() {
    let texts: Vec<String> =
        (0..20).map(|i| format!("a line in all of them\nown line {i:02}")).collect();
    let at = |max_removed| Boilerplate { max_removed, ..Boilerplate::default() };
    assert_eq!(of(&at(22.0 / 33.0), &texts)[0].1, Verdict::Keep);
    assert_eq!(of(&at(0.66), &texts)[0].1, Verdict::Drop("too_much_removed"));
    let same = vec!["a line in all of them".to_owned(); 20];
    assert_eq!(of(&at(1.0), &same)[0].1, Verdict::Drop("nothing_left"));
}
