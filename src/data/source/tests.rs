//! Tests of finding and reading documents: order, what is skipped, and where errors point.

use std::fs;
use std::path::Path;

use super::{Corpus, READ_BYTES, Skipped};
use crate::data::{DataError, TextSpec};

fn scan(source: &Path) -> Result<Corpus, DataError> {
    Corpus::scan(&TextSpec::from(source.to_str().unwrap()), &mut |_| {})
}

fn documents(corpus: &Corpus) -> Vec<String> {
    let mut texts = Vec::new();
    corpus
        .for_each(&mut |document| {
            texts.push(document.text.to_owned());
            Ok(())
        })
        .unwrap();
    texts
}

#[test]
fn a_folder_is_read_in_path_order_and_its_rest_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    fs::create_dir_all(folder.path().join("b/.git")).unwrap();
    write("b/.git/x.txt", b"hidden folder");
    write("b/two.md", b"two");
    write("a.TXT", b"one");
    write("c.rs", b"three");
    write(".hidden.txt", b"hidden");
    write("photo.jpg", b"other");
    write("latin.txt", b"caf\xe9");
    write("zeros.txt", b"a\0b");
    write("empty.txt", b"");
    let corpus = scan(folder.path()).unwrap();
    assert_eq!(documents(&corpus), ["one", "two", "three"]);
    let names: Vec<&str> = corpus.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["a.TXT", "b/two.md", "c.rs"]);
    assert_eq!(corpus.bytes, 11);
    let expected = Skipped { not_utf8: 1, binary: 1, hidden: 2, other: 1, empty: 1, large: 0 };
    assert_eq!(corpus.skipped, expected);
}

#[cfg(unix)]
#[test]
fn links_to_files_are_followed_and_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(folder.path().join(to), folder.path().join(name)).unwrap();
    };
    fs::write(folder.path().join("a.txt"), "one").unwrap();
    link("a.txt", "b.txt");
    link("nowhere", "c.txt");
    link(".", "loop");
    let corpus = scan(folder.path()).unwrap();
    assert_eq!(documents(&corpus), ["one", "one"]);
    assert_eq!(corpus.skipped.hidden, 2);
}

#[test]
fn a_list_keeps_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("a.txt"), "a").unwrap();
    fs::write(path("b"), "b").unwrap();
    let text = TextSpec(vec![path("b"), path("a.txt")]);
    assert_eq!(documents(&Corpus::scan(&text, &mut |_| {}).unwrap()), ["b", "a"]);
}

#[test]
fn a_named_file_that_is_not_utf8_is_an_error_with_the_offset() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latin.txt");
    let offset_of = |bytes: Vec<u8>| {
        fs::write(&path, bytes).unwrap();
        match scan(&path).unwrap_err() {
            error @ DataError::NotUtf8 { offset, .. } => {
                assert!(error.is_user_error());
                assert!(error.to_string().contains(&format!("byte {offset} is not UTF-8")));
                offset
            }
            other => panic!("{other}"),
        }
    };
    assert_eq!(offset_of(b"caf\xe9 au lait".to_vec()), 3);
    assert_eq!(offset_of(b"cut \xe2\x82".to_vec()), 4);
    let mut long = vec![b'x'; READ_BYTES + 7];
    long.push(0xff);
    assert_eq!(offset_of(long), READ_BYTES as u64 + 7);
}

#[test]
fn characters_across_read_blocks_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.txt");
    for shift in 0..4 {
        let text = "x".repeat(shift) + &"€😀".repeat(READ_BYTES / 4);
        fs::write(&path, &text).unwrap();
        let corpus = scan(&path).unwrap();
        assert_eq!(corpus.bytes, text.len() as u64);
        assert_eq!(corpus.files[0].digest, *blake3::hash(text.as_bytes()).as_bytes());
    }
}

#[test]
fn json_lines_are_documents() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("docs.jsonl");
    let lines = "{\"text\": \"first\\nline\", \"id\": 1}\n\n{\"text\": \"\"}\n{\"text\":\"last\"}";
    fs::write(&path, lines).unwrap();
    let corpus = scan(&path).unwrap();
    assert_eq!(documents(&corpus), ["first\nline", "last"]);
    assert_eq!(corpus.for_each(&mut |_| Ok(())).unwrap(), 1);
}

#[test]
fn a_broken_json_line_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("docs.jsonl");
    for (line, complaint) in [
        ("{\"text\": \"unfinished", "EOF while parsing"),
        ("{\"body\": \"x\"}", "missing field `text`"),
        ("{\"text\": 3}", "invalid type"),
    ] {
        fs::write(&path, format!("{{\"text\": \"fine\"}}\n{line}\n")).unwrap();
        let error = scan(&path).unwrap().for_each(&mut |_| Ok(())).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, DataError::JsonLine { line: 2, .. }), "{message}");
        assert!(message.contains("docs.jsonl: line 2: ") && message.contains(complaint));
        assert!(!message.contains("at line 1"), "{message}");
    }
}

#[test]
fn no_text_is_an_error_that_says_what_was_skipped() {
    let folder = tempfile::tempdir().unwrap();
    assert!(scan(folder.path()).unwrap_err().to_string().contains("no text found"));
    fs::write(folder.path().join("a.bin"), "x").unwrap();
    fs::write(folder.path().join("a.txt"), "").unwrap();
    let message = scan(folder.path()).unwrap_err().to_string();
    assert!(message.contains("1 without a text extension, 1 empty"), "{message}");
    let missing = scan(&folder.path().join("nothing")).unwrap_err();
    assert!(missing.is_user_error());
    assert!(missing.to_string().ends_with("nothing does not exist"), "{missing}");
}
