//! What a file holds.
//!
//! Duty: by the bytes it begins with where they say it, else by its name. Prohibition: reads no
//! file.

use std::fmt;
use std::path::Path;

use super::read::Compression;
use super::{Fields, has_extension, lines};

/// Endings of files of JSON lines, in lower case.
const JSON_LINES: &[&str] = &["jsonl", "ndjson"];
/// Endings that files of JSON lines often have, as other files do.
const JSON: &[&str] = &["json"];

/// The format of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// One document.
    Text,
    /// A document a line, as a field of a JSON object.
    JsonLines,
    /// Documents that a stage of the preparation has written.
    Documents,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::JsonLines => "JSON lines",
            Self::Documents => "documents",
        })
    }
}

impl Format {
    /// What the name says, if it says more than text.
    pub(in crate::data) fn by_name(path: &Path) -> Option<Self> {
        has_extension(path, JSON_LINES).then_some(Self::JsonLines)
    }

    /// What a file holds whose decompressed content begins with `head`. A `.json` file, or one
    /// whose name says nothing, holds JSON lines if its first line is one with the field wanted.
    pub(super) fn of(path: &Path, head: &[u8], fields: &Fields) -> Self {
        let (_, name) = Compression::of(path);
        let open = name.extension().is_none() || has_extension(path, JSON);
        match Self::by_name(path) {
            Some(format) => format,
            None if open && begins_with_json_line(head, fields) => Self::JsonLines,
            None => Self::Text,
        }
    }

    /// Whether it is read as characters from its first byte to its last.
    pub(super) fn is_characters(self) -> bool {
        matches!(self, Self::Text | Self::JsonLines)
    }
}

fn begins_with_json_line(head: &[u8], fields: &Fields) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    std::str::from_utf8(line).is_ok_and(|line| lines::record_of(line.trim(), fields).is_ok())
}
