//! Archives of files: tar.
//!
//! Duty: each file of text in it is a document, each line of a file of JSON lines too; what has no
//! ending of text passes unseen, as in a folder. Prohibition: no archive inside an archive.

use std::io::Read;
use std::path::Path;

use super::format::Format;
use super::read::Input;
use super::records::{RECORD_BYTES_MAX, Records};
use super::{Fields, TEXT_EXTENSIONS, has_extension, lines};
use crate::data::error::DataError;

/// Reads every file of the archive.
pub(super) fn read(
    input: &mut Input,
    fields: &Fields,
    records: &mut Records<'_>,
) -> Result<(), DataError> {
    let mut archive = tar::Archive::new(input);
    let entries = match archive.entries() {
        Ok(entries) => entries,
        Err(error) => {
            records.bad(0, format!("expected a tar archive: {error}"));
            return Ok(());
        }
    };
    let mut content = Vec::new();
    let mut offset = 0;
    for entry in entries {
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                // Where the next one begins is not known any more.
                records.bad(offset, format!("expected the head of a file: {error}"));
                return Ok(());
            }
        };
        offset = entry.raw_header_position();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = Path::new(&name);
        if !entry.header().entry_type().is_file() || !has_extension(path, TEXT_EXTENSIONS) {
            continue;
        }
        if entry.size() > RECORD_BYTES_MAX as u64 {
            let got = entry.size();
            records.bad(
                offset,
                format!("{name}: expected at most {RECORD_BYTES_MAX} bytes, got {got}"),
            );
            continue;
        }
        content.clear();
        let size = entry.size();
        let read = (&mut entry).take(size).read_to_end(&mut content);
        if !read.is_ok_and(|read| read as u64 == size) {
            records.bad(offset, format!("{name}: expected {size} bytes, but the archive ends"));
            return Ok(());
        }
        if !file(&name, offset, &content, fields, records)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Takes one file; false if the source wants no more.
fn file(
    name: &str,
    offset: u64,
    content: &[u8],
    fields: &Fields,
    records: &mut Records<'_>,
) -> Result<bool, DataError> {
    let Ok(text) = std::str::from_utf8(content) else {
        records.bad(offset, format!("{name}: it is not UTF-8"));
        return Ok(true);
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if Format::of(Path::new(name), content, fields) != Format::JsonLines {
        return records.document(offset, name, text);
    }
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        match lines::record_of(line.trim(), fields) {
            Err(reason) => records.bad(offset, format!("{name}, line {number}: {reason}")),
            Ok(record) => {
                let url = record.url.as_deref().unwrap_or_default();
                if !records.document(offset, url, &record.text)? {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}
