//! Tests of documents on disk: they come back whole, in order, and damage is seen.

use std::fs;

use super::{Block, SpoolWriter};
use crate::data::TextSpec;
use crate::data::source::{Corpus, Piece};

fn piece<'a>(text: &'a str, offset: u64, url: &'a str) -> Piece<'a> {
    Piece { text, begins: true, ends: true, file: 7, offset, url }
}

#[test]
fn documents_come_back_in_order_and_numbered() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("a.txt");
    fs::write(&text, "x").unwrap();
    let source = TextSpec::from(text.to_str().unwrap()).into();
    let corpus = Corpus::scan(&source, &mut |_| Ok(())).unwrap();
    let path = folder.path().join("documents");
    let mut writer = SpoolWriter::open(&path, None).unwrap();
    let mut block = Block::default();
    assert!(block.pack().is_none());
    block.push(&piece("one", 5, "http://a"));
    block.push(&piece("", 1 << 40, ""));
    writer.push(&block.pack().unwrap()).unwrap();
    let known = writer.sync().unwrap();
    block.push(&piece("lost", 0, ""));
    writer.push(&block.pack().unwrap()).unwrap();
    // Goes on behind what was known.
    let mut writer = SpoolWriter::open(&path, Some(&known)).unwrap();
    block.push(&piece("\u{20ac}", 9, "b"));
    writer.push(&block.pack().unwrap()).unwrap();
    let spooled = writer.sync().unwrap();
    assert_eq!((spooled.documents, spooled.text_bytes), (3, 6));
    let corpus = corpus.replaced(&spooled);
    let (mut seen, mut firsts) = (Vec::new(), Vec::new());
    let mut read = || {
        seen.clear();
        firsts.clear();
        corpus.for_each_part(&|_| None, &mut || Ok(Default::default()), &mut |part| {
            firsts.push(part.first_document);
            corpus
                .documents(&part, &mut |piece| {
                    let text = (piece.text.to_owned(), piece.url.to_owned());
                    seen.push((text, piece.file, piece.offset, piece.begins && piece.ends));
                    Ok(())
                })
                .map(drop)
        })
    };
    read().unwrap();
    // A flipped bit is an error, never other text.
    let mut bytes = fs::read(&path).unwrap();
    let expected = [("one", "http://a", 5), ("", "", 1 << 40), ("\u{20ac}", "b", 9)];
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let damaged = read().unwrap_err();
    assert!(damaged.to_string().contains("a block of documents is damaged"), "{damaged}");
    fs::write(&path, {
        bytes[last] ^= 1;
        &bytes
    })
    .unwrap();
    read().unwrap();
    let expected = expected.map(|(t, u, o)| ((t.to_owned(), u.to_owned()), 7, o, true));
    assert_eq!(seen, expected);
    assert_eq!(firsts, [0, 2]);
}
