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
    /// A document in each row of a table, from a column of strings.
    Parquet,
    /// Pages of the web, or texts made of them, in WARC records.
    Warc,
    /// Articles of a wiki, in MediaWiki's XML.
    Wikipedia,
    /// A document in each file of an archive.
    Tar,
    /// Documents that a stage of the preparation has written.
    Documents,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::JsonLines => "JSON lines",
            Self::Parquet => "Parquet",
            Self::Warc => "WARC",
            Self::Wikipedia => "a dump of a wiki",
            Self::Tar => "tar",
            Self::Documents => "documents",
        })
    }
}

impl Format {
    /// What the name says, if it says more than text.
    pub(in crate::data) fn by_name(path: &Path) -> Option<Self> {
        let (_, name) = Compression::of(path);
        let ending = name.extension()?.to_str()?.to_ascii_lowercase();
        match ending.as_str() {
            ending if JSON_LINES.contains(&ending) => Some(Self::JsonLines),
            "parquet" => Some(Self::Parquet),
            "warc" | "wet" => Some(Self::Warc),
            "tar" => Some(Self::Tar),
            // Pieces of large dumps: `pages-articles1.xml-p1p41242`.
            ending if ending.starts_with("xml-p") => Some(Self::Wikipedia),
            _ => None,
        }
    }

    /// What a file holds whose decompressed content begins with `head`. A `.json` file, or one
    /// whose name says nothing, holds JSON lines if its first line is one with the field wanted.
    pub(super) fn of(path: &Path, head: &[u8], fields: &Fields) -> Self {
        let start = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
        let (_, name) = Compression::of(path);
        let open = name.extension().is_none() || has_extension(path, JSON);
        match () {
            () if head.starts_with(b"PAR1") => Self::Parquet,
            () if head.starts_with(b"WARC/") => Self::Warc,
            () if head.get(257..262) == Some(b"ustar") => Self::Tar,
            () if start.starts_with(b"<mediawiki") => Self::Wikipedia,
            () if has_extension(path, JSON_LINES) => Self::JsonLines,
            () if open && begins_with_json_line(start, fields) => Self::JsonLines,
            () => Self::Text,
        }
    }

    /// Whether it is read as characters from its first byte to its last.
    pub(super) fn is_characters(self) -> bool {
        matches!(self, Self::Text | Self::JsonLines)
    }
}

fn begins_with_json_line(start: &[u8], fields: &Fields) -> bool {
    let line = start.split(|&byte| byte == b'\n').next().unwrap_or_default();
    std::str::from_utf8(line).is_ok_and(|line| lines::record_of(line.trim(), fields).is_ok())
}
