//! Tests of every format: documents with their places, bad records counted, damage survived.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::data::source::{Corpus, PartCount};
use crate::data::{SourceConfig, TextSpec};

/// Address and text of each document, its place, and what was passed over.
type Seen = (Vec<(String, String, u64)>, PartCount);

fn read_with(path: &Path, max_bytes: Option<u64>) -> Seen {
    let source = SourceConfig { max_bytes, ..TextSpec::from(path.to_str().unwrap()).into() };
    let corpus = Corpus::scan(&source, &mut |_| Ok(())).unwrap();
    let (mut seen, mut count) = (Vec::new(), PartCount::default());
    corpus
        .for_each_part(&|_| None, &mut || Ok(Default::default()), &mut |part| {
            count.add(&corpus.documents(&part, &mut |piece| {
                assert!(piece.begins && piece.ends);
                seen.push((piece.url.to_owned(), piece.text.to_owned(), piece.offset));
                Ok(())
            })?);
            Ok(())
        })
        .unwrap();
    (seen, count)
}

fn read(path: &Path) -> Seen {
    read_with(path, None)
}

fn texts(seen: &Seen) -> Vec<&str> {
    seen.0.iter().map(|(_, text, _)| text.as_str()).collect()
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn record(kind: &str, url: &str, content_type: &str, content: &[u8]) -> Vec<u8> {
    let head = format!(
        "WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\n\
         Content-Type: {content_type}\r\n\
         Content-Length: {}\r\n\r\n",
        content.len()
    );
    [head.as_bytes(), content, b"\r\n\r\n"].concat()
}

fn page(status: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn archive() -> Vec<Vec<u8>> {
    let response = |url: &str, page: &[u8]| record("response", url, "application/http", page);
    vec![
        record("warcinfo", "", "application/warc-fields", b"software: none\r\n"),
        response(
            "http://a",
            &page("200 OK", "text/html; charset=utf-8", "<p>caf\u{e9}".as_bytes()),
        ),
        response("http://b", &page("404 Not Found", "text/html", b"<p>gone")),
        response("http://c", &page("200 OK", "image/png", b"\x89PNG")),
        response("http://d", &page("200 OK", "text/html; charset=iso-8859-1", b"<p>caf\xe9")),
        response("http://e", &page("200", "text/html", b"<meta charset=\"windows-1251\"><p>\xcc")),
        response("http://f", &page("200", "text/html", b"<p>\x93so\x94")),
        record(
            "conversion",
            "http://g",
            "text/plain",
            "W\u{f6}rter\r\n\r\nWARC/1.0 in it".as_bytes(),
        ),
    ]
}

#[test]
fn pages_of_an_archive_are_decoded_as_they_say() {
    let place = Place::new();
    let bytes = archive().concat();
    let expected = [
        "<p>caf\u{e9}",
        "<p>caf\u{e9}",
        "<meta charset=\"windows-1251\"><p>\u{41c}",
        "<p>\u{201c}so\u{201d}",
        "W\u{f6}rter\r\n\r\nWARC/1.0 in it",
    ];
    let seen = read(&place.file("a.warc", &bytes));
    assert_eq!(texts(&seen), expected);
    assert_eq!((seen.0[1].0.as_str(), seen.1.records, seen.1.bad_lines), ("http://d", 5, 0));
    assert!(bytes[seen.0[1].2 as usize..].starts_with(b"WARC/1.0"));
    // As they come: a member of gzip for each record, and other packings.
    let members: Vec<u8> = archive().iter().flat_map(|record| gzip(record)).collect();
    assert_eq!(read(&place.file("b.warc.gz", &members)), seen);
    let bzip2 = pack(bzip2::write::BzEncoder::new(Vec::new(), Default::default()), &bytes);
    assert_eq!(read(&place.file("c.warc.wet.bz2", &bzip2)), seen);
    let xz = pack(liblzma::write::XzEncoder::new(Vec::new(), 1), &bytes);
    assert_eq!(read(&place.file("d.warc.xz", &xz)), seen);
    // The name need not say how it is packed, nor what it is.
    assert_eq!(read(&place.file("e.warc", &xz)), seen);
    assert_eq!(read(&place.file("f", &bzip2)), seen);
}

#[test]
fn bad_records_of_an_archive_are_counted_and_passed() {
    let place = Place::new();
    let [good, last] = [1, 4].map(|at| archive()[at].clone());
    let nameless = b"WARC/1.0\r\nWARC-Type: response\r\n\r\nlost\r\n\r\n".to_vec();
    let bytes = [b"torn line\r\nand another\r\n", &good[..], &nameless, &last].concat();
    let seen = read(&place.file("a.warc", &[&good[..], &bytes].concat()));
    assert_eq!((texts(&seen).len(), seen.1.bad_lines), (3, 2));
    let [torn, nameless] = seen.1.examples.as_slice() else { panic!() };
    assert_eq!(torn.offset, good.len() as u64);
    assert!(torn.reason.contains("WARC/1.0") && nameless.reason.contains("Content-Length"));
    let cut = [&good[..], &last[..last.len() - 10]].concat();
    let seen = read(&place.file("b.warc", &cut));
    assert_eq!((texts(&seen).len(), seen.1.bad_lines), (1, 1));
    assert!(seen.1.examples[0].reason.contains("but the file ends after"));
}

fn pack(mut packer: impl Packer, bytes: &[u8]) -> Vec<u8> {
    packer.write_all(bytes).unwrap();
    packer.end()
}

trait Packer: std::io::Write {
    fn end(self) -> Vec<u8>;
}

impl Packer for bzip2::write::BzEncoder<Vec<u8>> {
    fn end(self) -> Vec<u8> {
        self.finish().unwrap()
    }
}

impl Packer for liblzma::write::XzEncoder<Vec<u8>> {
    fn end(self) -> Vec<u8> {
        self.finish().unwrap()
    }
}

impl Packer for flate2::write::GzEncoder<Vec<u8>> {
    fn end(self) -> Vec<u8> {
        self.finish().unwrap()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    pack(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()), bytes)
}

#[test]
fn articles_of_a_wiki_are_documents() {
    let place = Place::new();
    let page = |title: &str, rest: &str| {
        format!("  <page>\n    <title>{title}</title>\n    {rest}\n  </page>\n")
    };
    let text = |text: &str| {
        format!("<revision><text bytes=\"3\" xml:space=\"preserve\">{text}</text></revision>")
    };
    let dump = [
        "\n<mediawiki xmlns=\"x\">\n  <siteinfo><base>b</base></siteinfo>\n".to_owned(),
        page("A &amp; B", &format!("<ns>0</ns>{}", text("'''A''' &lt;b&gt;\n&#233;"))),
        page("Talk:A", &format!("<ns>1</ns>{}", text("talk"))),
        page("Old", &format!("<ns>0</ns><redirect title=\"A\" />{}", text("gone"))),
        page("Empty", "<ns>0</ns><revision><text bytes=\"0\" /></revision>"),
        page("Broken", "<ns>0</ns><revision><text>no end</revision>"),
        "  <page>\n    <title>Torn</title>\n".to_owned(),
        page("Last", &format!("<ns>0</ns>{}", text("last &amp;lt;"))),
        "</mediawiki>\n".to_owned(),
    ];
    let dump = dump.concat();
    let seen = read(&place.file("pages.xml-p1p2.gz", &gzip(dump.as_bytes())));
    assert_eq!(texts(&seen), ["'''A''' <b>\n\u{e9}", "last &lt;"]);
    assert_eq!(seen.0[0].0, "A & B");
    assert!(dump[seen.0[1].2 as usize..].trim_start().starts_with("<page>\n    <title>Last"));
    assert_eq!((seen.1.records, seen.1.empty, seen.1.bad_lines), (5, 1, 2));
    let cut = dump.find("<title>Last").unwrap();
    let seen = read(&place.file("b.xml", &dump.as_bytes()[..cut]));
    assert!(seen.1.examples.last().unwrap().reason.contains("but the file ends"));
}

#[test]
fn files_of_a_tar_are_documents() {
    let place = Place::new();
    let mut builder = tar::Builder::new(Vec::new());
    let long = format!("{}/b.md", "folder".repeat(30));
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    add("a.txt", b"\xef\xbb\xbfone");
    add("photo.jpg", b"\xff\xd8");
    add(&long, b"two");
    add("c.txt", b"caf\xe9");
    add("d.jsonl", b"{\"text\": \"three\", \"url\": \"u\"}\nbad\n{\"text\": \"four\"}\n");
    add("e.txt", b"");
    let bytes = builder.into_inner().unwrap();
    let seen = read(&place.file("a.tar", &bytes));
    assert_eq!(texts(&seen), ["one", "two", "three", "four"]);
    assert_eq!((seen.0[1].0.as_str(), seen.0[2].0.as_str()), (long.as_str(), "u"));
    assert_eq!((seen.1.bad_lines, seen.1.empty), (2, 1));
    assert!(seen.1.examples[1].reason.starts_with("d.jsonl, line 2: "));
    assert_eq!(texts(&read(&place.file("b.tgz", &gzip(&bytes)))).len(), 4);
    // Torn in the last file but one.
    let torn = read(&place.file("c.tar", &bytes[..bytes.len() - 2600]));
    assert!(torn.1.bad_lines >= 2 && texts(&torn).starts_with(&["one", "two"]), "{torn:?}");
}

fn table(texts: &[Option<&str>], schema: &str) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Default::default()).unwrap();
    for texts in texts.chunks(300) {
        let mut group = writer.next_row_group().unwrap();
        for number in 0..2 {
            let mut column = group.next_column().unwrap().unwrap();
            let given = |text: &Option<&str>| text.is_some() || number > 0;
            let levels: Vec<i16> = texts.iter().map(|text| i16::from(given(text))).collect();
            let value = |text: &Option<&str>| match number {
                0 => text.map(ByteArray::from),
                _ => Some(ByteArray::from("http://x")),
            };
            let values: Vec<ByteArray> = texts.iter().filter_map(value).collect();
            let column_writer = column.typed::<ByteArrayType>();
            column_writer.write_batch(&values, Some(&levels), None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

const SCHEMA: &str = "message rows { optional binary text (UTF8); optional binary url (UTF8); }";

#[test]
fn rows_of_a_table_are_documents() {
    let place = Place::new();
    let rows: Vec<String> = (0..1000).map(|i| format!("row {i}")).collect();
    let mut given: Vec<Option<&str>> = rows.iter().map(|row| Some(row.as_str())).collect();
    (given[3], given[4]) = (None, Some(""));
    let bytes = table(&given, SCHEMA);
    let path = place.file("a.parquet", &bytes);
    let seen = read(&path);
    assert_eq!((seen.0.len(), seen.1.records, seen.1.empty, seen.1.bad_lines), (998, 1000, 2, 0));
    assert_eq!(seen.0[3], ("http://x".to_owned(), "row 5".to_owned(), 5));
    assert_eq!(seen.0[997].2, 999);
    // A limit ends it behind the row that reaches it.
    assert_eq!(texts(&read_with(&path, Some(12))), ["row 0", "row 1", "row 2"]);
    let wrong = table(&given, "message rows { optional binary body; optional binary url; }");
    let seen = read(&place.file("b.parquet", &wrong));
    assert!(seen.1.examples[0].reason.contains("\"text\" (see data.field) among body, url"));
    // Damage inside a group of rows loses this group only.
    let mut damaged = bytes;
    let page = damaged.windows(5).position(|five| five == b"row 7").unwrap();
    damaged[20..page + 600].fill(0xff);
    let seen = read(&place.file("c.parquet", &damaged));
    assert!(seen.1.bad_lines >= 1 && texts(&seen).contains(&"row 999"), "{:?}", seen.1);
    assert!(read(&place.file("d.parquet", b"PAR1 and no more")).1.bad_lines == 1);
}
