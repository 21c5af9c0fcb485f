//! Archives of the web: WARC and WET (ISO 28500).
//!
//! Duty: a document for each page that was answered with success, decoded as its server or itself
//! says, and for each text that was made of one; other records pass unseen. Behind a bad record the
//! next one is looked for. Prohibition: takes no markup away; that is a step of cleaning.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};

use super::read::Input;
use super::records::{RECORD_BYTES_MAX, Records};
use crate::data::error::DataError;

/// A longer line is none of a header.
const LINE_BYTES: usize = 64 << 10;
/// Bytes of a page in which it may say how it is encoded, as browsers look.
const META_BYTES: usize = 1024;

#[derive(Debug, Default)]
struct Header {
    kind: String,
    url: String,
    content_type: String,
    length: Option<u64>,
}

/// Reads every record.
pub(super) fn read(input: &mut Input, records: &mut Records<'_>) -> Result<(), DataError> {
    let (mut line, mut content) = (Vec::new(), Vec::new());
    let mut in_order = true;
    loop {
        let offset = input.position();
        if input.line(&mut line, LINE_BYTES)? == 0 {
            return Ok(());
        }
        if !line.starts_with(b"WARC/") {
            if in_order && !line.trim_ascii().is_empty() {
                records.bad(offset, "expected the line \"WARC/1.0\" where a record begins");
                in_order = false;
            }
            continue;
        }
        in_order = true;
        let header = header(input, &mut line)?;
        let Some(length) = header.length else {
            records.bad(offset, "expected a record with a Content-Length");
            in_order = false;
            continue;
        };
        let wanted = matches!(header.kind.as_str(), "response" | "conversion" | "resource");
        let limit = if wanted { RECORD_BYTES_MAX } else { 0 };
        let read = input.content(length, &mut content, limit)?;
        if read < length {
            records.bad(offset, format!("expected {length} bytes, but the file ends after {read}"));
            return Ok(());
        }
        if !wanted {
            continue;
        }
        if length > limit as u64 {
            records.bad(offset, format!("expected at most {limit} bytes, got {length}"));
            continue;
        }
        if let Some(text) = text_of(&header, &content)
            && !records.document(offset, &header.url, &text)?
        {
            return Ok(());
        }
    }
}

fn header(input: &mut Input, line: &mut Vec<u8>) -> Result<Header, DataError> {
    let mut header = Header::default();
    while input.line(line, LINE_BYTES)? > 0 && !line.trim_ascii().is_empty() {
        let Some((name, value)) = field(line) else { continue };
        match name.as_str() {
            "warc-type" => header.kind = value.to_ascii_lowercase(),
            "warc-target-uri" => header.url = value.trim_matches(['<', '>']).to_owned(),
            "content-type" => header.content_type = value.to_ascii_lowercase(),
            "content-length" => header.length = value.parse().ok(),
            _ => {}
        }
    }
    Ok(header)
}

/// A line of a header: its name in lower case, and its value.
fn field(line: &[u8]) -> Option<(String, String)> {
    let line = String::from_utf8_lossy(line);
    let (name, value) = line.split_once(':')?;
    Some((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

/// The text of a record; none of what is no text.
fn text_of<'a>(header: &Header, content: &'a [u8]) -> Option<Cow<'a, str>> {
    if header.kind != "response" {
        let text = header.content_type.is_empty() || header.content_type.starts_with("text/");
        return text.then(|| decode(content, &header.content_type));
    }
    let end = content.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = (&content[..end], &content[end + 4..]);
    let mut lines = head.split(|&byte| byte == b'\n');
    let status = lines.next()?.split(|&byte| byte == b' ').nth(1)?;
    if status.trim_ascii() != b"200" {
        return None;
    }
    let (mut kind, mut packed) = (String::new(), false);
    for (name, value) in lines.filter_map(field) {
        match name.as_str() {
            "content-type" => kind = value.to_ascii_lowercase(),
            // Archives keep what was sent only where they could not unpack it.
            "content-encoding" => packed = !value.eq_ignore_ascii_case("identity"),
            _ => {}
        }
    }
    let page = ["text/html", "application/xhtml", "text/plain"];
    let page = page.iter().any(|page| kind.starts_with(page));
    let packed = packed && body.starts_with(&[0x1f, 0x8b]);
    (page && !packed).then(|| decode(body, &kind))
}

/// Bytes as text: by a byte order mark, what the server says, what the page says, as UTF-8 if
/// they are, and else as browsers do.
fn decode<'a>(bytes: &'a [u8], content_type: &str) -> Cow<'a, str> {
    let said = |text: &str| {
        let (_, name) = text.split_once("charset=")?;
        let name = name.trim_start_matches(['"', '\'']);
        let end = name.find(['"', '\'', ';', '>', ' ', '/']).unwrap_or(name.len());
        Encoding::for_label(&name.as_bytes()[..end])
    };
    let head =
        || String::from_utf8_lossy(&bytes[..bytes.len().min(META_BYTES)]).to_ascii_lowercase();
    let valid = || std::str::from_utf8(bytes).is_ok().then_some(UTF_8);
    let encoding = said(content_type).or_else(|| said(&head())).or_else(valid);
    encoding.unwrap_or(WINDOWS_1252).decode(bytes).0
}
