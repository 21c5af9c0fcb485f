//! Tests of finding and reading documents: order, what is skipped, and where errors point.

use std::fs;
use std::path::Path;

use super::{Corpus, READ_BYTES, Skipped};
use crate::data::{DataError, SourceConfig, TextSpec};

fn scan(source: &Path) -> Result<Corpus, DataError> {
    scan_with(&TextSpec::from(source.to_str().unwrap()).into())
}

fn scan_with(source: &SourceConfig) -> Result<Corpus, DataError> {
    Corpus::scan(source, &mut |_| Ok(()))
}

fn documents(corpus: &Corpus) -> Vec<String> {
    read(corpus).unwrap()
}

/// All documents, put together from their pieces.
fn read(corpus: &Corpus) -> Result<Vec<String>, DataError> {
    let mut texts: Vec<String> = Vec::new();
    corpus.for_each(&mut |text, begins| {
        match texts.last_mut().filter(|_| !begins) {
            Some(last) => last.push_str(text),
            None => texts.push(text.to_owned()),
        }
        Ok(())
    })?;
    Ok(texts)
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
    let none = Skipped::default();
    let expected = Skipped { not_utf8: 1, binary: 1, hidden: 2, other: 1, empty: 1, ..none };
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
    assert_eq!(documents(&scan_with(&text.into()).unwrap()), ["b", "a"]);
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
}

#[test]
fn a_broken_json_line_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("docs.jsonl");
    for (line, complaint) in [
        ("{}", "(see data.field), but it is empty"),
        ("{\"text\": \"unfinished", "EOF while parsing"),
        ("{\"body\": \"x\"}", "(see data.field), but it has only \"body\""),
        ("{\"text\": 3}", "invalid type"),
    ] {
        fs::write(&path, format!("{{\"text\": \"fine\"}}\n{line}\n")).unwrap();
        let corpus = scan(&path).unwrap();
        let count = count(&corpus);
        let message = corpus.check_bad(&count, true).unwrap_err().to_string();
        let place = "data.text: 1 of 2 records are bad";
        assert!(message.starts_with(place) && message.contains("docs.jsonl, byte 17: line 2: "));
        assert!(message.contains(complaint));
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

#[test]
fn compressed_files_are_read_as_what_they_hold() {
    let folder = tempfile::tempdir().unwrap();
    let text = "one line of many\n".repeat(100_000);
    let lines = "{\"text\": \"first\"}\n{\"text\": \"second\"}\n";
    let write = |name: &str, bytes: Vec<u8>| fs::write(folder.path().join(name), bytes).unwrap();
    write("a.txt.gz", gzip(text.as_bytes()));
    // Two members are one text, as two files that were joined.
    write("b.md.gz", [gzip(b"half and "), gzip(b"half")].concat());
    write("c.jsonl.zst", zstd::encode_all(lines.as_bytes(), 3).unwrap());
    write("d.jsonl.gz", gzip(lines.as_bytes()));
    let frames =
        [zstd::encode_all(&b"x "[..], 3).unwrap(), zstd::encode_all(&b"y"[..], 3).unwrap()];
    write("e.txt.zst", frames.concat());
    write("f.bin.gz", gzip(b"not text"));
    let corpus = scan(folder.path()).unwrap();
    let expected = [&text, "half and half", "first", "second", "first", "second", "x y"];
    assert_eq!(documents(&corpus), expected);
    assert_eq!(corpus.skipped.other, 1);
    // What it holds decides the identity, not how it is packed.
    assert_eq!(corpus.files[0].digest, *blake3::hash(text.as_bytes()).as_bytes());
    assert_eq!(corpus.files[0].bytes, text.len() as u64);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn broken_archives_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = "some text that is worth to be compressed. ".repeat(99);
    let packed = [("a.txt.gz", gzip(text.as_bytes())), {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_checksum(true).unwrap();
        std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
        ("a.txt.zst", encoder.finish().unwrap())
    }];
    for (name, good) in packed {
        let path = folder.path().join(name);
        let mut flipped = good.clone();
        let middle = good.len() / 2;
        flipped[middle] ^= 0x40;
        for bad in [&good[..good.len() - 3], &flipped, b"no archive at all"] {
            fs::write(&path, bad).unwrap();
            let error = scan(&path).unwrap_err();
            assert!(matches!(error, DataError::Compressed { .. }), "{name}: {error}");
            let format = if name.ends_with("gz") { "gzip" } else { "Zstandard" };
            let said = error.to_string();
            assert!(error.is_user_error() && said.starts_with("data.text: "), "{said}");
            assert!(said.contains(&format!("{name}: expected {format} data, as its")), "{said}");
        }
    }
}

#[test]
fn the_field_is_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    fs::write(&path, "{\"text\": [1, {}], \"body\": \"caf\\u00e9\", \"z\": null}\n").unwrap();
    let text = TextSpec::from(path.to_str().unwrap());
    let with = |field: &str| SourceConfig { field: Some(field.to_owned()), ..text.clone().into() };
    let corpus = scan_with(&with("body")).unwrap();
    assert_eq!(documents(&corpus), ["caf\u{e9}"]);
    let bad = &count(&scan_with(&with("title")).unwrap()).examples[0];
    let what = &bad.reason;
    assert!(what.starts_with("line 1: ") && what.contains("a string \"title\""), "{what}");
}

#[test]
fn bad_lines_are_passed_over_and_counted_wherever_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let lines = [
        &b"{\"text\": \"one\"}\nno json\n{\"text\": 2}\n{\"text\": \"\"}\n"[..],
        b"{\"text\": \"caf\xe9 au lait\"}\n{\"text\": \"\xe2\x82\xac\"}\n",
        b"{\"text\": \"\xff\xe2\x82\"}\n",
        b"{\"text\": \"last\"}\n\xe2\x82",
    ];
    fs::write(&path, lines.concat()).unwrap();
    for path in [folder.path(), &path] {
        let corpus = scan(path).unwrap();
        assert_eq!(documents(&corpus), ["one", "\u{20ac}", "last"]);
        let count = count(&corpus);
        assert_eq!((count.records, count.bad_lines, count.empty), (9, 5, 1));
        let latin = &count.examples[2];
        assert_eq!((latin.offset, latin.reason.as_str()), (49, "line 5: it is not UTF-8"));
        assert_eq!(count.examples[4].reason, "line 9: it is not UTF-8");
        assert_eq!(*blake3::hash(&lines.concat()).as_bytes(), corpus.files[0].digest);
    }
    // Across blocks of reading too.
    let long =
        [b"{\"text\": \"x", "\u{20ac}".repeat(READ_BYTES).as_bytes(), b"\"}\n\xe9\n"].concat();
    fs::write(&path, long).unwrap();
    let corpus = scan(&path).unwrap();
    assert_eq!(documents(&corpus)[0].len(), 1 + 3 * READ_BYTES);
    assert_eq!(count(&corpus).examples[0].reason, "line 2: it is not UTF-8");
}

/// What is passed over.
fn count(corpus: &Corpus) -> super::PartCount {
    let mut count = super::PartCount::default();
    let none: super::Cut<'_> = &|_| None;
    corpus
        .for_each_part(none, &mut || Ok(super::Part::default()), &mut |part| {
            count.add(&corpus.documents(&part, &mut |_| Ok(()))?);
            Ok(())
        })
        .unwrap();
    count
}

#[test]
fn what_cannot_be_unpacked_in_a_folder_is_one_bad_record_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = gzip("some text that is worth to be compressed. ".repeat(90_000).as_bytes());
    for number in 0..20 {
        fs::write(folder.path().join(format!("{number}.txt")), "fine").unwrap();
    }
    fs::write(folder.path().join("a.txt.gz"), &text[..text.len() - 3]).unwrap();
    let corpus = scan(folder.path()).unwrap();
    assert_eq!(documents(&corpus).len(), 20);
    let count = count(&corpus);
    assert_eq!((count.records, count.bad_lines), (21, 1));
    let (bad, file) = (&count.examples[0], &corpus.files[count.examples[0].file]);
    assert!(file.name == "a.txt.gz" && bad.offset > 0, "{bad:?}");
    assert!(bad.reason.contains("expected gzip data"), "{bad:?}");
    assert!(corpus.check_bad(&count, true).is_ok());
}

#[test]
fn long_files_come_in_parts_and_lines_keep_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let text = "€ and words ".repeat(400_000);
    let line = format!("{{\"text\": \"{}\"}}\n", "w".repeat(1000));
    fs::write(folder.path().join("a.txt"), &text).unwrap();
    fs::write(folder.path().join("b.jsonl"), line.repeat(5000) + "bad\n").unwrap();
    let corpus = scan(folder.path()).unwrap();
    let (mut parts, mut joined) = (0, String::new());
    let space: super::Cut<'_> = &|text| text.rfind(' ');
    let mut bad = super::PartCount::default();
    corpus
        .for_each_part(space, &mut || Ok(super::Part::default()), &mut |part| {
            parts += 1;
            assert!(part.text.len() < 3 << 20, "{} bytes", part.text.len());
            if part.file == 0 {
                joined.push_str(&part.text);
            }
            bad.add(&corpus.documents(&part, &mut |_| Ok(()))?);
            Ok(())
        })
        .unwrap();
    assert!(bad.bad_lines == 1 && bad.examples[0].reason.starts_with("line 5001: "), "{bad:?}");
    assert!(parts > 8 && joined == text);
}

#[test]
fn text_that_cannot_be_cut_is_searched_once_and_cut_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let text = "\u{4e2d}\u{56fd}\u{3002}".repeat(8 << 20);
    fs::write(folder.path().join("a.txt"), &text).unwrap();
    let corpus = scan(folder.path()).unwrap();
    let looked_at = std::sync::atomic::AtomicUsize::new(0);
    let never: super::Cut<'_> = &|text| {
        looked_at.fetch_add(text.len(), std::sync::atomic::Ordering::Relaxed);
        None
    };
    let mut parts = Vec::new();
    corpus
        .for_each_part(never, &mut || Ok(super::Part::default()), &mut |part| {
            parts.push(part);
            Ok(())
        })
        .unwrap();
    let pieces: Vec<&str> = parts.iter().map(|part| part.text.as_str()).collect();
    assert!(pieces.concat() == text);
    let lengths: Vec<usize> = pieces.iter().map(|piece| piece.len()).collect();
    assert!(lengths.len() == 2 && lengths[0] < 65 << 20, "{lengths:?}");
    // One character of every part that is read is looked at twice.
    assert!(looked_at.into_inner() <= text.len() + 4 * (text.len() >> 20));
}

#[test]
fn windows_longer_than_usual_are_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let text = "words and more words\n".repeat(1000);
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    // Beyond the 2^27 that the library takes by itself.
    encoder.window_log(30).unwrap();
    std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
    fs::write(folder.path().join("a.txt.zst"), encoder.finish().unwrap()).unwrap();
    assert_eq!(documents(&scan(folder.path()).unwrap()), [text]);
}

#[test]
fn a_limit_ends_a_source_at_a_character_or_a_line() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "0123456789").unwrap();
    fs::write(folder.path().join("b.txt"), "€€€€").unwrap();
    fs::write(folder.path().join("c.txt"), "never").unwrap();
    let lines = folder.path().join("d.ndjson");
    fs::write(&lines, "{\"text\": \"one\"}\n{\"text\": \"two\"}\n").unwrap();
    let limited = |path: &Path, bytes| {
        let text = TextSpec::from(path.to_str().unwrap());
        let source = SourceConfig { max_bytes: Some(bytes), ..text.into() };
        documents(&scan_with(&source).unwrap())
    };
    assert_eq!(limited(folder.path(), 17), ["0123456789", "€€"]);
    assert_eq!(limited(&lines, 16), ["one"]);
    assert_eq!(limited(&lines, 31), ["one"]);
    assert_eq!(limited(&lines, 32), ["one", "two"]);
}

#[test]
fn a_file_that_changes_after_the_scan_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.txt");
    for changed in ["same length", "cut", "this one has grown", ""] {
        fs::write(&path, "as scanned.").unwrap();
        let corpus = scan(&path).unwrap();
        assert_eq!(read(&corpus).unwrap(), ["as scanned."]);
        fs::write(&path, changed).unwrap();
        let refused = read(&corpus).unwrap_err();
        assert!(matches!(refused, DataError::Changed { .. }), "{changed}: {refused}");
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_skipped_in_a_folder_and_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "one").unwrap();
    let socket = folder.path().join("b.txt");
    let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let pipe = folder.path().join("c.txt");
    let name = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
    // SAFETY: the name is a C string that lives through the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let corpus = scan(folder.path()).unwrap();
    assert_eq!(documents(&corpus), ["one"]);
    assert_eq!(corpus.skipped, Skipped { special: 2, ..Skipped::default() });
    assert!(corpus.skipped.to_string().ends_with(", 2 neither file nor folder"));
    for path in [&pipe, &socket] {
        let error = scan(path).unwrap_err();
        assert!(error.is_user_error());
        assert!(error.to_string().contains("expected a file or a folder"), "{error}");
    }
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "\u{feff}one").unwrap();
    fs::write(folder.path().join("b.jsonl"), "\u{feff}{\"text\": \"two\"}\n").unwrap();
    fs::write(folder.path().join("c.txt"), "not \u{feff} here").unwrap();
    assert_eq!(documents(&scan(folder.path()).unwrap()), ["one", "two", "not \u{feff} here"]);
}

#[test]
fn json_lines_are_known_by_what_they_hold() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "\n{\"text\": \"first\", \"url\": 3}\n{\"url\": \"x\", \"text\": \"second\"}\n";
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    write("c4-train.00000.json.gz", &gzip(lines.as_bytes()));
    write("pretty.json", b"{\n  \"text\": \"one document\"\n}\n");
    write("other.json", b"{\"body\": \"one document\"}\n");
    write("quoted.txt", lines.as_bytes());
    let corpus = scan(folder.path()).unwrap();
    let formats = corpus.files.iter().map(|file| file.format.to_string()).collect::<Vec<_>>();
    assert_eq!(formats, ["JSON lines", "text", "text", "text"]);
    assert_eq!(documents(&corpus)[..2], ["first", "second"]);
    // Without an ending, what a file holds decides too.
    write("part-00000", lines.as_bytes());
    let part = scan(&folder.path().join("part-00000")).unwrap();
    assert_eq!(documents(&part), ["first", "second"]);
}
