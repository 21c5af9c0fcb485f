//! Documents, in an order that depends on names and contents only.
//!
//! Duty: finds the files of a source, recognises ([`format`]), checks and hashes them once
//! ([`Corpus::scan`]), and reads them as often as needed, in [`parts`] that can be worked on alone.
//! A text is one document; other formats hold one for each line, row, record or page. Folders are
//! read in path order; only files whose name ends like text ([`TEXT_EXTENSIONS`]) or like a
//! container of documents count. Prohibition: changes no character of a text but for a byte order
//! mark, which is passed over; knows no tokens.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cargo;
use super::config::{BAD_RECORDS_MAX, SourceConfig};
use super::error::DataError;
pub use format::Format;
use inspect::Content;
pub(in crate::data) use parts::{BadRecord, PartCount, Piece};
use parts::{Cut, Part, PartKind};
use read::Compression;

pub mod format;
mod inspect;
mod lines;
mod parquet;
pub(in crate::data) mod parts;
mod read;
mod records;
pub(in crate::data) mod spool;
mod tar;
mod warc;
mod wiki;

/// The extensions, in lower case, that a file in a folder must have to be read.
pub const TEXT_EXTENSIONS: &[&str] = &[
    "txt", "text", "md", "markdown", "rst", "adoc", "org", "tex", "html", "htm", "xml", "csv",
    "tsv", "json", "jsonl", "ndjson", "toml", "yaml", "yml", "ini", "cfg", "rs", "py", "c", "h",
    "cc", "cpp", "hpp", "cu", "cuh", "go", "java", "kt", "scala", "js", "ts", "jsx", "tsx", "css",
    "swift", "rb", "php", "pl", "lua", "r", "jl", "hs", "ml", "ex", "erl", "clj", "zig", "sh",
    "sql",
];

const READ_BYTES: usize = 1 << 20;
/// Records after which a share of bad ones is judged before the end.
const BAD_RECORDS_JUDGED: u64 = 10_000;

/// What was passed over inside folders, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Skipped {
    /// Files that are not UTF-8.
    pub not_utf8: u64,
    /// Files with a zero byte near their start.
    pub binary: u64,
    /// Files and folders whose name begins with a dot, links to folders, broken links.
    pub hidden: u64,
    /// Files without one of [`TEXT_EXTENSIONS`].
    pub other: u64,
    /// Files and JSON lines without text.
    pub empty: u64,
    /// Generated tables among the packages of `"cargo"`.
    pub large: u64,
    /// JSON lines and other records that are no documents.
    pub bad_lines: u64,
    /// What is neither a file nor a folder: pipes, sockets, devices.
    pub special: u64,
}

impl Skipped {
    /// Adds what was passed over elsewhere.
    pub fn add(&mut self, other: &Self) {
        let Self { not_utf8, binary, hidden, other: extension, empty, large, bad_lines, special } =
            other;
        self.not_utf8 += not_utf8;
        self.binary += binary;
        self.hidden += hidden;
        self.other += extension;
        self.empty += empty;
        self.large += large;
        self.bad_lines += bad_lines;
        self.special += special;
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { not_utf8, binary, hidden, other, empty, large, bad_lines, special } = self;
        write!(
            f,
            "skipped: {not_utf8} not UTF-8, {binary} binary, {hidden} hidden, {other} without a \
             text extension, {empty} empty, {large} too large, {bad_lines} bad lines"
        )?;
        match special {
            0 => Ok(()),
            _ => write!(f, ", {special} neither file nor folder"),
        }
    }
}

/// One file that holds documents.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Where to read it.
    pub path: PathBuf,
    /// Its name below the source it was found in: part of the data's identity, unlike `path`.
    pub name: String,
    /// Length in bytes, decompressed.
    pub bytes: u64,
    /// How much of it belongs to the source: less than `bytes` only where `max_bytes` ends it.
    pub take: u64,
    /// blake3 of the decompressed contents.
    pub digest: [u8; 32],
    /// What it holds.
    pub format: Format,
    /// Why it cannot be unpacked, and from which byte of its text on: then it is one bad record.
    damage: Option<(u64, String)>,
}

impl SourceFile {
    /// Whether it is a bad record as a whole.
    pub(super) fn is_damaged(&self) -> bool {
        self.damage.is_some()
    }

    /// What it holds, where its name does not say so.
    pub(super) fn format_besides_name(&self) -> Option<Format> {
        let named = Format::by_name(&self.path).unwrap_or(Format::Text);
        (self.format != named).then_some(self.format)
    }
}

/// The checked list of files.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// In reading order.
    pub files: Vec<SourceFile>,
    /// What was passed over while the files were found.
    pub skipped: Skipped,
    /// Sum of what is taken of the files.
    pub bytes: u64,
    /// The key that names the source.
    key: String,
    /// The source as it was given.
    given: String,
    fields: Fields,
    bad_records_max: f64,
    limit: u64,
}

/// What the fields of a record are called.
#[derive(Clone, Debug)]
pub(in crate::data) struct Fields {
    pub(in crate::data) text: String,
    pub(in crate::data) url: String,
}

/// A file that was found but not yet looked into.
pub(super) struct Candidate {
    pub(super) path: PathBuf,
    pub(super) name: String,
    /// Named by the user: a file that is not what it should be is an error instead of a count.
    pub(super) direct: bool,
}

impl Corpus {
    /// Finds, checks and hashes the files of a source of [`super::DataConfig::texts`]. `progress`
    /// gets bytes done so far and may end the scan.
    ///
    /// # Errors
    /// A file that does not exist, a directly named one that is not UTF-8, no text at all, and
    /// whatever `progress` returns.
    pub fn scan(
        source: &SourceConfig,
        progress: &mut dyn FnMut(u64) -> Result<(), DataError>,
    ) -> Result<Self, DataError> {
        Self::scan_as(source, false, progress)
    }

    /// As [`Self::scan`], but no file is passed over for what it holds, as if all of a folder were
    /// named directly.
    ///
    /// # Errors
    /// As [`Self::scan`].
    pub(in crate::data) fn scan_whole(source: &SourceConfig) -> Result<Self, DataError> {
        Self::scan_as(source, true, &mut |_| Ok(()))
    }

    fn scan_as(
        source: &SourceConfig,
        whole: bool,
        progress: &mut dyn FnMut(u64) -> Result<(), DataError>,
    ) -> Result<Self, DataError> {
        let mut corpus = Self {
            files: Vec::new(),
            skipped: Skipped::default(),
            bytes: 0,
            key: source.key(),
            given: source.text.to_string(),
            fields: Fields {
                text: source.field.clone().unwrap_or_else(|| "text".to_owned()),
                url: source.url_field.clone().unwrap_or_else(|| "url".to_owned()),
            },
            bad_records_max: source.bad_records_max.unwrap_or(BAD_RECORDS_MAX),
            limit: source.max_bytes.unwrap_or(u64::MAX),
        };
        for text in &source.text.0 {
            if text == "cargo" {
                let found = cargo::find(&cargo::registry_folder(), &mut corpus.skipped)?;
                let limit = corpus.bytes + cargo::CORPUS_BYTES;
                for candidate in found {
                    if !corpus.add(candidate, limit, progress)? {
                        break;
                    }
                }
            } else {
                for candidate in find(Path::new(text), &corpus.key, &mut corpus.skipped)? {
                    let direct = candidate.direct || whole;
                    if corpus.bytes < corpus.limit {
                        corpus.add(Candidate { direct, ..candidate }, u64::MAX, progress)?;
                    }
                }
            }
        }
        if corpus.files.is_empty() {
            return Err(corpus.no_text(corpus.skipped));
        }
        Ok(corpus)
    }

    /// Looks into one file; false if it would take the corpus past `limit` bytes.
    fn add(
        &mut self,
        candidate: Candidate,
        limit: u64,
        progress: &mut dyn FnMut(u64) -> Result<(), DataError>,
    ) -> Result<bool, DataError> {
        let Candidate { path, name, direct } = candidate;
        let before = self.bytes;
        let look = inspect::Look { key: &self.key, path: &path, direct, fields: &self.fields };
        match look.inspect(&mut |bytes| progress(before + bytes))? {
            Content::Text { bytes, .. } if self.bytes + bytes > limit => return Ok(false),
            Content::Text { bytes, digest, format } => {
                let take = bytes.min(self.limit - self.bytes);
                self.bytes += take;
                let damage = None;
                self.files.push(SourceFile { path, name, bytes, take, digest, format, damage });
            }
            Content::Damaged { error, .. } if direct => return Err(error),
            Content::Damaged { offset, error } => {
                let damage = Some((offset, error.to_string()));
                let (bytes, take, digest, format) = (0, 0, [0; 32], Format::Text);
                self.files.push(SourceFile { path, name, bytes, take, digest, format, damage });
            }
            Content::NotUtf8 { offset } if direct => {
                return Err(DataError::not_utf8(&self.key, &path, offset));
            }
            Content::NotUtf8 { .. } => self.skipped.not_utf8 += 1,
            Content::Binary => self.skipped.binary += 1,
            Content::Empty => self.skipped.empty += 1,
        }
        progress(self.bytes)?;
        Ok(true)
    }

    /// The error for a corpus without a single document.
    pub(super) fn no_text(&self, skipped: Skipped) -> DataError {
        let (key, sources) = (self.key.clone(), self.given.clone());
        DataError::EmptyCorpus { key, sources, skipped }
    }

    /// One file of documents that a stage has made of this corpus, which takes its place.
    pub(in crate::data) fn replaced(&self, spool: &spool::Spooled) -> Self {
        let file = SourceFile {
            path: spool.path.clone(),
            name: String::new(),
            bytes: spool.bytes,
            take: spool.bytes,
            digest: [0; 32],
            format: Format::Documents,
            damage: None,
        };
        Self { files: vec![file], bytes: spool.text_bytes, ..self.clone() }
    }

    /// Whether there are too many bad records: asked now and then, once there are enough to judge
    /// by, and at the end.
    ///
    /// # Errors
    /// [`DataError::BadRecords`], which names the first.
    pub(in crate::data) fn check_bad(&self, count: &PartCount, end: bool) -> Result<(), DataError> {
        let allowed = self.bad_records_max * count.records as f64;
        if count.bad_lines as f64 <= allowed || !(end || count.records >= BAD_RECORDS_JUDGED) {
            return Ok(());
        }
        let first = count.examples.first();
        let first = first.map_or(String::new(), |bad| {
            let path = self.files.get(bad.file).map_or(String::new(), |file| file.name.clone());
            format!("{path}, byte {}: {}", bad.offset, bad.reason)
        });
        let (key, allowed) = (self.key.clone(), self.bad_records_max);
        let (bad, records) = (count.bad_lines, count.records);
        Err(DataError::BadRecords { key, bad, records, allowed, first })
    }

    /// What decides the documents besides the files: field, policy and limit.
    pub(super) fn reading(&self) -> impl Iterator<Item = Vec<u8>> {
        // A setting that is gone, so that what was prepared before is found.
        let skip = vec![0];
        let reading =
            [self.fields.text.clone().into_bytes(), skip, self.limit.to_le_bytes().into()];
        reading.into_iter()
    }

    /// Reads all files in order. `memory` gives the next part to fill, `take` gets it filled; a
    /// text is cut into several parts only where `cut` allows it.
    ///
    /// # Errors
    /// A file that vanished or changed, and whatever `memory` and `take` return.
    pub(in crate::data) fn for_each_part(
        &self,
        cut: Cut<'_>,
        memory: &mut dyn FnMut() -> Result<Part, DataError>,
        take: &mut dyn FnMut(Part) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        self.files.iter().enumerate().try_for_each(|file| match file.1.format {
            _ if file.1.damage.is_some() => take(damaged(file)),
            Format::Text | Format::JsonLines => parts::read(&self.key, file, cut, memory, take),
            _ => records::read((&self.key, &self.fields), file, memory, take),
        })
    }

    /// The texts of a part's documents.
    ///
    /// # Errors
    /// Whatever `visit` returns.
    pub(in crate::data) fn documents(
        &self,
        part: &Part,
        visit: &mut dyn FnMut(Piece<'_>) -> Result<(), DataError>,
    ) -> Result<PartCount, DataError> {
        match part.kind {
            PartKind::Text { begins, ends } => {
                visit(Piece { begins, ends, ..Piece::whole(&part.text, part.file, part.offset) })?;
                Ok(PartCount { records: begins.into(), ..PartCount::default() })
            }
            PartKind::Records => part.records(visit),
            PartKind::Lines { first } => self.lines(part, first, visit),
        }
    }

    fn lines(
        &self,
        part: &Part,
        first: u64,
        visit: &mut dyn FnMut(Piece<'_>) -> Result<(), DataError>,
    ) -> Result<PartCount, DataError> {
        let mut count = PartCount::default();
        let mut offset = part.offset;
        for (line, text) in (first..).zip(part.text.split('\n')) {
            let at = offset;
            offset += text.len() as u64 + 1;
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            count.records += 1;
            match lines::record_of(text, &self.fields) {
                Ok(record) if record.text.is_empty() => count.empty += 1,
                Ok(record) => {
                    let url = record.url.as_deref().unwrap_or_default();
                    visit(Piece { url, ..Piece::whole(&record.text, part.file, at) })?;
                }
                Err(reason) => {
                    let no_text = text.contains(parts::NO_TEXT);
                    let reason = if no_text { "it is not UTF-8".to_owned() } else { reason };
                    let reason = format!("line {line}: {reason}");
                    count.bad(BadRecord { file: part.file, offset: at, reason });
                }
            }
        }
        Ok(count)
    }

    /// Calls `visit` with all text in order, in pieces, on this thread; the flag says that a
    /// document begins. Gives what was passed over.
    ///
    /// # Errors
    /// As [`Corpus::for_each_part`] and [`Corpus::documents`].
    pub(in crate::data) fn for_each(
        &self,
        visit: &mut dyn FnMut(&str, bool) -> Result<(), DataError>,
    ) -> Result<PartCount, DataError> {
        let mut count = PartCount::default();
        // A character's border will do.
        let cut: Cut<'_> = &|text| Some(text.len());
        self.for_each_part(cut, &mut || Ok(Part::default()), &mut |part| {
            count.add(&self.documents(&part, &mut |piece| visit(piece.text, piece.begins))?);
            Ok(())
        })?;
        Ok(count)
    }
}

/// What a file that cannot be unpacked gives.
fn damaged((number, file): (usize, &SourceFile)) -> Part {
    let mut part = Part { file: number, kind: PartKind::Records, ..Part::default() };
    if let Some((offset, reason)) = file.damage.clone() {
        part.passed_over.records = 1;
        part.passed_over.bad(BadRecord { file: number, offset, reason });
    }
    part
}

/// Whether the name, without an ending of compression, ends like one of these.
pub(super) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    Compression::of(path)
        .1
        .extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| extensions.contains(&extension.to_ascii_lowercase().as_str()))
}

/// The files of one source: itself, or everything readable below it in path order.
fn find(source: &Path, key: &str, skipped: &mut Skipped) -> Result<Vec<Candidate>, DataError> {
    let kind = match fs::metadata(source) {
        Ok(kind) => kind,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(DataError::Missing { key: key.to_owned(), path: source.to_owned() });
        }
        Err(error) => return Err(DataError::io(source, "read")(error)),
    };
    if kind.is_dir() {
        let mut found = Vec::new();
        walk(source, source, &mut found, skipped, &|path| {
            has_extension(path, TEXT_EXTENSIONS) || Format::by_name(path).is_some()
        })?;
        Ok(found)
    } else if !kind.is_file() {
        let (key, path) = (key.to_owned(), source.to_owned());
        Err(DataError::Special { key, path })
    } else {
        let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(vec![Candidate { path: source.to_owned(), name, direct: true }])
    }
}

/// Appends the files below `folder` that are wanted; names are relative to `root`.
pub(super) fn walk(
    root: &Path,
    folder: &Path,
    found: &mut Vec<Candidate>,
    skipped: &mut Skipped,
    wanted: &dyn Fn(&Path) -> bool,
) -> Result<(), DataError> {
    let mut entries = fs::read_dir(folder)
        .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
        .map_err(DataError::io(folder, "read"))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let link = entry.file_type().map_err(DataError::io(&path, "read"))?.is_symlink();
        let kind = fs::metadata(&path);
        // A link to a folder may be a loop, a link that leads nowhere is nothing.
        let unfollowed = link && !kind.as_ref().is_ok_and(|kind| !kind.is_dir());
        if unfollowed || entry.file_name().as_encoded_bytes().starts_with(b".") {
            skipped.hidden += 1;
            continue;
        }
        let kind = kind.map_err(DataError::io(&path, "read"))?;
        if kind.is_dir() {
            walk(root, &path, found, skipped, wanted)?;
        } else if !kind.is_file() {
            // A pipe would be waited for, without an end.
            skipped.special += 1;
        } else if wanted(&path) {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            found.push(Candidate { path, name, direct: false });
        } else {
            skipped.other += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
