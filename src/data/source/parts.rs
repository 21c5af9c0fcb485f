//! Files as parts of about a megabyte that can be encoded on their own.
//!
//! Duty: cuts a long document only where the caller says that its tokens do not change, JSON
//! lines between lines; checks UTF-8, and makes of a line that is none one that is no JSON either.
//! Every byte is checked and searched once, however long it takes to find a place. Limits: holds
//! one part; a document that cannot be cut for 64 MiB is cut all the same; a JSON line is held
//! whole. Prohibition: knows no tokens, parses no line.

use std::path::Path;
use std::str::Utf8Error;

use serde::{Deserialize, Serialize};

use super::SourceFile;
use super::format::Format;
use super::read::Source;
use crate::data::error::DataError;

/// Bytes of a part, about.
pub(super) const PART_BYTES: usize = 1 << 20;
/// Some programs begin a text with it. It is none of the text.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// Stands in the place of each byte of a JSON line that belongs to no character. It may not stand
/// in one, so that the line is bad.
pub(super) const NO_TEXT: char = '\0';
/// Bytes of a document without a place to cut it. No text that was written has as many: this is
/// one word, or white space.
const UNCUT_BYTES_MAX: usize = 64 << 20;

/// The last place, if any, at which a text may be cut whatever follows and whatever is before it
/// but its first character. A place is never 0.
pub(in crate::data) type Cut<'a> = &'a (dyn Fn(&str) -> Option<usize> + Sync);

/// What can be worked on without the rest of the corpus.
#[derive(Debug, Default)]
pub(in crate::data) struct Part {
    /// Position in [`super::Corpus::files`].
    pub(in crate::data) file: usize,
    /// Where the text begins in the file, in bytes of its decompressed content.
    pub(in crate::data) offset: u64,
    /// A document or a piece of one, whole lines, or the texts of records, joined.
    pub(in crate::data) text: String,
    /// What the text is.
    pub(in crate::data) kind: PartKind,
    /// The records, for [`PartKind::Records`].
    pub(in crate::data) records: Vec<Record>,
    /// Number of the first document, counted over the corpus, where it was made by a stage.
    pub(in crate::data) first_document: u64,
    /// What the reader found besides.
    pub(in crate::data) passed_over: PartCount,
}

impl Part {
    /// Empties it, to be filled again.
    pub(in crate::data) fn clear(&mut self) {
        let mut text = std::mem::take(&mut self.text);
        let mut records = std::mem::take(&mut self.records);
        text.clear();
        records.clear();
        *self = Self { text, records, ..Self::default() };
    }

    /// Takes a byte order mark at the start of the file away.
    fn pass_over_mark(&mut self) {
        if self.offset == 0 && self.text.starts_with(BYTE_ORDER_MARK) {
            self.text.drain(..BYTE_ORDER_MARK.len_utf8());
            self.offset = BYTE_ORDER_MARK.len_utf8() as u64;
        }
    }

    /// Visits the records as documents.
    pub(super) fn records(
        &self,
        visit: &mut dyn FnMut(Piece<'_>) -> Result<(), DataError>,
    ) -> Result<PartCount, DataError> {
        let mut start = 0;
        for record in &self.records {
            let text = &self.text[start..record.end];
            visit(Piece { url: &record.url, ..Piece::whole(text, record.file, record.offset) })?;
            start = record.end;
        }
        Ok(self.passed_over.clone())
    }
}

/// What a part holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::data) enum PartKind {
    /// A piece of a document: its first, its last, both or neither.
    Text { begins: bool, ends: bool },
    /// JSON lines; the number of the first one, from 1.
    Lines { first: u64 },
    /// Whole documents.
    Records,
}

impl Default for PartKind {
    fn default() -> Self {
        Self::Text { begins: true, ends: true }
    }
}

/// One of the documents of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::data) struct Record {
    /// Where its text ends in that of the part.
    pub(in crate::data) end: usize,
    /// The file that it came from first.
    pub(in crate::data) file: usize,
    /// Its place in that file.
    pub(in crate::data) offset: u64,
    /// Its address, if it has one.
    pub(in crate::data) url: String,
}

/// A document, or a piece of one.
#[derive(Clone, Copy, Debug)]
pub(in crate::data) struct Piece<'a> {
    pub(in crate::data) text: &'a str,
    /// Whether the document begins here.
    pub(in crate::data) begins: bool,
    /// Whether it ends here.
    pub(in crate::data) ends: bool,
    /// The file that it came from first, and its place there.
    pub(in crate::data) file: usize,
    pub(in crate::data) offset: u64,
    /// Its address; empty if it has none.
    pub(in crate::data) url: &'a str,
}

impl<'a> Piece<'a> {
    /// A document of its own, without an address.
    pub(super) fn whole(text: &'a str, file: usize, offset: u64) -> Self {
        Self { text, begins: true, ends: true, file, offset, url: "" }
    }
}

/// A record that is no document.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(in crate::data) struct BadRecord {
    /// Position in [`super::Corpus::files`].
    pub(in crate::data) file: usize,
    /// Where it begins in the decompressed file.
    pub(in crate::data) offset: u64,
    /// What is wrong with it.
    pub(in crate::data) reason: String,
}

/// What a part holds besides documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(in crate::data) struct PartCount {
    /// Records in all; what is one document as a whole is none.
    pub(in crate::data) records: u64,
    /// Records without text.
    pub(in crate::data) empty: u64,
    /// Records that are no documents.
    pub(in crate::data) bad_lines: u64,
    /// The first of them.
    pub(in crate::data) examples: Vec<BadRecord>,
}

/// Bad records that are named.
const EXAMPLES_MAX: usize = 20;

impl PartCount {
    pub(in crate::data) fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.empty += other.empty;
        self.bad_lines += other.bad_lines;
        let room = EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.iter().take(room).cloned());
    }

    /// Counts a bad record.
    pub(super) fn bad(&mut self, record: BadRecord) {
        self.bad_lines += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(record);
        }
    }
}

/// Reads one file of the source that `key` names. `memory` gives the next part to fill; `take` gets
/// it filled.
pub(super) fn read(
    key: &str,
    (number, file): (usize, &SourceFile),
    cut: Cut<'_>,
    memory: &mut dyn FnMut() -> Result<Part, DataError>,
    take: &mut dyn FnMut(Part) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut source = Source::open(key, &file.path)?;
    let lines = file.format == Format::JsonLines;
    let (mut left, mut begins, mut line) = (file.take, true, 1);
    // Text behind the last part, and what was read but may be an unfinished character.
    let (mut rest, mut block) = (String::new(), Vec::new());
    let mut offset = 0;
    let mut hasher = blake3::Hasher::new();
    loop {
        let mut part = memory()?;
        let text = &mut part.text;
        text.clear();
        text.push_str(&std::mem::take(&mut rest));
        let mut searched = 0;
        let end = loop {
            let unfinished = block.len();
            let more = usize::try_from(left).unwrap_or(usize::MAX).min(PART_BYTES);
            block.resize(unfinished + more, 0);
            let read = source.fill(&mut block[unfinished..])?;
            block.truncate(unfinished + read);
            hasher.update(&block[unfinished..]);
            left -= read as u64;
            if read < more && left > 0 {
                left = 0;
            }
            let whole = left == 0 && file.take == file.bytes;
            strike_out(&mut block, lines, whole);
            let valid = valid((key, &file.path), offset + text.len() as u64, &block, whole)?;
            text.push_str(valid);
            let length = valid.len();
            block.drain(..length);
            // Whether the first new character may be cut off depends on the one before it.
            let from = text[..searched].char_indices().next_back().map_or(0, |(at, _)| at);
            let place = match lines {
                true => text[from..].rfind('\n').map(|at| from + at + 1),
                false => cut(&text[from..]).map(|at| from + at).filter(|&at| at > 0),
            };
            match place {
                _ if left == 0 && lines && file.take < file.bytes => break place.unwrap_or(0),
                _ if left == 0 => break text.len(),
                Some(place) => break place,
                None if !lines && text.len() >= UNCUT_BYTES_MAX => break text.len(),
                None => searched = text.len(),
            }
        };
        if left > 0 {
            rest.push_str(&text[end..]);
        }
        text.truncate(end);
        (part.file, part.offset) = (number, offset);
        offset += end as u64;
        part.pass_over_mark();
        let kept = part.text.bytes().filter(|&byte| lines && byte == b'\n').count();
        part.kind = match lines {
            true => PartKind::Lines { first: line },
            false => PartKind::Text { begins, ends: left == 0 },
        };
        (begins, line) = (false, line + kept as u64);
        take(part)?;
        if left == 0 {
            return check_unchanged(&mut source, file, hasher);
        }
    }
}

/// Reads a file to its end and refuses one that is not what was scanned: its tokens would be kept
/// under the identity of other text.
fn check_unchanged(
    source: &mut Source,
    file: &SourceFile,
    mut hasher: blake3::Hasher,
) -> Result<(), DataError> {
    let mut rest = vec![0; PART_BYTES];
    loop {
        let read = source.fill(&mut rest)?;
        if read == 0 {
            break;
        }
        hasher.update(&rest[..read]);
    }
    if *hasher.finalize().as_bytes() != file.digest {
        return Err(DataError::Changed { path: file.path.clone() });
    }
    Ok(())
}

/// Makes characters of what is none in lines; what may be the beginning of one stays, unless that
/// is all.
fn strike_out(bytes: &mut [u8], lines: bool, whole: bool) {
    let mut from = 0;
    while lines && let Err(error) = std::str::from_utf8(&bytes[from..]) {
        let begin = from + error.valid_up_to();
        let Some(length) = error.error_len().or(whole.then_some(bytes.len() - begin)) else {
            return;
        };
        from = begin + length;
        bytes[begin..from].fill(NO_TEXT as u8);
    }
}

/// The part of `bytes`, which stand at `offset` of the file, that ends with a whole character.
fn valid<'a>(
    (key, path): (&str, &Path),
    offset: u64,
    bytes: &'a [u8],
    whole: bool,
) -> Result<&'a str, DataError> {
    let refused =
        |error: Utf8Error| DataError::not_utf8(key, path, offset + error.valid_up_to() as u64);
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() && !whole => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).map_err(refused)
        }
        checked => checked.map_err(refused),
    }
}
