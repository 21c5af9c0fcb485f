//! What is left of documents.

use super::{PartSearch, without};
use crate::data::dedupe::config::DedupeConfig;

fn left(config: &str, texts: &[&str]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let config: DedupeConfig = toml::from_str(config).unwrap();
    let (questions, mut search) = PartSearch::new(&config, folder.path());
    for text in texts {
        let note = questions.note(text);
        search.push((*text != "gone").then_some((*text, &note))).unwrap();
    }
    let gone = search.find(2).unwrap();
    let left = |(number, text): (u64, &&str)| {
        if *text == "gone" {
            return String::new();
        }
        let mut left = String::new();
        without(text, &gone.ranges(number, text), &mut left);
        left
    };
    (0..).zip(texts).map(left).collect()
}

#[test]
fn lines_and_paragraphs_stay_where_they_are_first() {
    let texts = [
        "Menu | Home\nnews of today\n",
        "gone",
        "Menu | Home\nother news\n}\n",
        "}\n Menu | Home \n}",
    ];
    let expected = ["Menu | Home\nnews of today\n", "", "other news\n}\n", "}\n}"];
    assert_eq!(left("lines = {min_bytes = 4}", &texts), expected);
    let texts = ["one\ntwo\n\nthree four\n", "two\n\none\ntwo\n\n\nfive"];
    let expected = ["one\ntwo\n\nthree four\n", "two\n\nfive"];
    assert_eq!(left("paragraphs = {min_bytes = 4}", &texts), expected);
}

#[test]
fn ranges_of_all_kinds_meet() {
    let shared = "a passage of some length that comes again";
    let texts = [
        format!("a line of its own\n{shared}"),
        format!("{shared} and more\na line of its own\nend"),
    ];
    let texts = texts.each_ref().map(String::as_str);
    let config = "lines = {min_bytes = 8}\nsubstring = {bytes = 30}";
    assert_eq!(left(config, &texts), [texts[0], " and more\nend"]);
}
