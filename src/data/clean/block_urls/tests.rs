//! Tests of `block_urls` on worked examples.

use std::path::PathBuf;

use super::{BlockUrls, host};
use crate::data::clean::testing::opened;
use crate::data::clean::{Document, Step, Verdict};

#[test]
fn addresses_are_blocked_by_every_list_and_not_without() {
    let folder = tempfile::tempdir().unwrap();
    let list = |name: &str, text: &str| -> Option<PathBuf> {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let step = BlockUrls {
        domains: list("domains", "bad.com\n"),
        urls: list("urls", "http://ok.org/this\n"),
        words: list("words", "casino\n"),
        soft_words: list("soft", "free\nwin\n"),
        soft_words_min: 2,
        parts: list("parts", "x-x-x\n"),
    };
    assert!(step.validate().is_ok());
    let cleaner = opened(&step);
    let of = |url: &str| {
        let mut document = Document::default();
        document.set("text", url);
        match cleaner.apply(&mut document) {
            Verdict::Keep => "",
            Verdict::Drop(reason) => reason,
        }
    };
    for (url, reason) in [
        ("https://www.BAD.com:80/x", "blocked_domain"),
        ("https://notbad.com/", ""),
        ("http://ok.org/this", "blocked_url"),
        ("http://ok.org/this/too", ""),
        ("http://ok.org/casino-here", "blocked_url_word"),
        ("http://ok.org/casinos", ""),
        ("http://ok.org/win-free", "blocked_url_soft_words"),
        ("http://ok.org/win-win", ""),
        ("http://ok.org/axxxb", "blocked_url_part"),
        ("", ""),
    ] {
        assert_eq!(of(url), reason, "{url}");
    }
    assert_eq!(host("http://me:pw@a.b.org:8/x?y"), "a.b.org");
    assert!(BlockUrls::default().validate().is_err());
}
