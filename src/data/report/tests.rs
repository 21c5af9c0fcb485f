//! Tests of the page: it parses, needs nothing else, holds the figures, and obeys no document.

use std::collections::BTreeMap;

use html5gum::{Token, Tokenizer};

use super::page::page;
use super::{BadPlace, Report, SourceReport, by_logarithm};
use crate::data::clean::StepReport;

fn report() -> Report {
    let mut whole = StepReport::new("whole");
    let mut length = StepReport::new("gopher_quality");
    for i in 0..1234 {
        whole.kept(100, 100, false);
        match i < 234 {
            true => {
                length.drop("too_few_words", "</pre><script>alert(1)</script> & \u{1} so", 1, i)
            }
            false => length.kept(100, 90, true),
        }
    }
    length.score(0.97);
    let mut source = SourceReport {
        name: "web".to_owned(),
        formats: BTreeMap::from([("JSON lines".to_owned(), 3)]),
        bytes: 5 << 20,
        steps: vec![whole, length],
        documents: 1000,
        text_bytes: 90_000,
        train_tokens: 18_000,
        validation_tokens: 2_000,
        sizes: by_logarithm([90; 1000].into_iter()),
        lengths: by_logarithm((1..=1000).map(|n| n % 40)),
        ..SourceReport::default()
    };
    source.name_files(&["a".to_owned(), "b<c>.jsonl".to_owned()], &[]);
    let (file, reason) = ("bad & file".to_owned(), "no <json>".to_owned());
    source.bad_records = vec![BadPlace { file, offset: 77_777, reason }];
    let seconds = BTreeMap::from([("clean".to_owned(), 1.5)]);
    Report { tokenizer: "bpe:300".to_owned(), vocabulary: 300, sources: vec![source], seconds }
}

#[test]
fn the_page_parses_and_every_element_ends() {
    let page = page(&report());
    let mut open: Vec<String> = Vec::new();
    let mut seen = Vec::new();
    for token in Tokenizer::new(&page).flatten() {
        match token {
            Token::Error(error) => panic!("{error:?}"),
            Token::StartTag(tag) => {
                let name = String::from_utf8(tag.name.to_vec()).unwrap();
                for attribute in tag.attributes.keys() {
                    // Nothing is loaded from elsewhere.
                    assert!(!matches!(&attribute[..], b"src" | b"href" | b"onload"), "{name}");
                }
                seen.push(name.clone());
                if name != "meta" {
                    open.push(name);
                }
            }
            Token::EndTag(tag) => {
                assert_eq!(open.pop().unwrap().as_bytes(), &tag.name[..]);
            }
            _ => {}
        }
    }
    assert!(open.is_empty(), "{open:?}");
    assert!(!seen.iter().any(|name| name == "script"));
    assert_eq!(seen.iter().filter(|name| *name == "figure").count(), 4);
    assert!(!page.contains("http") && !page.contains("url("));
}

#[test]
fn the_page_holds_the_figures() {
    let page = page(&report());
    for figure in [
        "<strong>1,234</strong>",
        "<strong>1,000</strong><small>81.04 %",
        "<strong>20,000</strong><small>18,000 to train on, 2,000 held out",
        "4.500 bytes per token",
        "5.0 MiB in files",
        "<td>gopher quality</td><td>1,234</td><td>234 (18.96 %)</td><td>1,000</td><td>1,000</td>",
        "<b>too few words</b>: 234 documents (18.96 %)",
        "b&lt;c&gt;.jsonl, byte ",
        "&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt; &amp; \u{fffd} so",
        "<td>bad &amp; file</td><td>77,777</td><td>no &lt;json&gt;</td>",
        "3 of JSON lines",
        "clean: 1.5 s.",
    ] {
        assert!(page.contains(figure), "{figure}");
    }
}

#[test]
fn both_files_are_written_and_one_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Report::read(folder.path()).is_none());
    report().save(folder.path()).unwrap();
    assert_eq!(Report::read(folder.path()).unwrap(), report());
    assert!(folder.path().join(super::PAGE).exists());
    assert_eq!(by_logarithm([0, 1, 2, 3, 4, 1023].into_iter()), [2, 2, 1, 0, 0, 0, 0, 0, 0, 1]);
}
