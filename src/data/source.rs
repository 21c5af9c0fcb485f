//! Documents, in an order that depends on names and contents only.
//!
//! Duty: finds the files of a source, checks and hashes them once ([`Corpus::scan`]), and reads
//! them as often as needed, in [`parts`] that can be encoded on their own. A file is one document;
//! each line of a `.jsonl` file is one; both may be compressed (`.gz`, `.zst`). Folders are read
//! in path order; only files whose name ends like text ([`TEXT_EXTENSIONS`]) count.
//! Prohibition: changes no character of a text; knows no tokens.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cargo;
use super::config::{BadLines, SourceConfig};
use super::error::DataError;
use parts::{Cut, Part, PartKind};
use read::{Compression, Source};

mod lines;
pub(in crate::data) mod parts;
mod read;

/// The extensions, in lower case, that a file in a folder must have to be read.
pub const TEXT_EXTENSIONS: &[&str] = &[
    "txt", "text", "md", "markdown", "rst", "adoc", "org", "tex", "html", "htm", "xml", "csv",
    "tsv", "json", "jsonl", "ndjson", "toml", "yaml", "yml", "ini", "cfg", "rs", "py", "c", "h",
    "cc", "cpp", "hpp", "cu", "cuh", "go", "java", "kt", "scala", "js", "ts", "jsx", "tsx", "css",
    "swift", "rb", "php", "pl", "lua", "r", "jl", "hs", "ml", "ex", "erl", "clj", "zig", "sh",
    "sql",
];

/// Bytes at the start of a file in which a zero byte means "binary".
const BINARY_PROBE: usize = 8 << 10;
const READ_BYTES: usize = 1 << 20;

/// What was passed over inside folders, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
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
    /// JSON lines that are no documents.
    pub bad_lines: u64,
}

impl Skipped {
    /// Adds what was passed over elsewhere.
    pub fn add(&mut self, other: &Self) {
        let Self { not_utf8, binary, hidden, other: extension, empty, large, bad_lines } = other;
        self.not_utf8 += not_utf8;
        self.binary += binary;
        self.hidden += hidden;
        self.other += extension;
        self.empty += empty;
        self.large += large;
        self.bad_lines += bad_lines;
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { not_utf8, binary, hidden, other, empty, large, bad_lines } = self;
        write!(
            f,
            "skipped: {not_utf8} not UTF-8, {binary} binary, {hidden} hidden, {other} without a \
             text extension, {empty} empty, {large} too large, {bad_lines} bad lines"
        )
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
    /// Named by the user, not found in a folder.
    direct: bool,
}

impl SourceFile {
    fn is_json_lines(&self) -> bool {
        has_extension(&self.path, &["jsonl", "ndjson"])
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
    field: String,
    bad_lines: BadLines,
    limit: u64,
}

/// A file that was found but not yet looked into.
pub(super) struct Candidate {
    pub(super) path: PathBuf,
    pub(super) name: String,
    /// Named by the user: a file that is not UTF-8 is an error instead of a count.
    pub(super) direct: bool,
}

/// Documents and what else a part holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartCount {
    /// JSON lines without text.
    pub(super) empty: u64,
    /// JSON lines that are no documents.
    pub(super) bad_lines: u64,
}

impl PartCount {
    pub(super) fn add(&mut self, other: &Self) {
        self.empty += other.empty;
        self.bad_lines += other.bad_lines;
    }
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
        bad_lines: BadLines,
        progress: &mut dyn FnMut(u64) -> Result<(), DataError>,
    ) -> Result<Self, DataError> {
        let mut corpus = Self {
            files: Vec::new(),
            skipped: Skipped::default(),
            bytes: 0,
            key: source.key(),
            given: source.text.to_string(),
            field: source.field.clone().unwrap_or_else(|| "text".to_owned()),
            bad_lines,
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
                    if corpus.bytes < corpus.limit {
                        corpus.add(candidate, u64::MAX, progress)?;
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
        match inspect(&self.key, &path, direct, &mut |bytes| progress(before + bytes))? {
            Content::Text { bytes, .. } if self.bytes + bytes > limit => return Ok(false),
            Content::Text { bytes, digest } => {
                let take = bytes.min(self.limit - self.bytes);
                self.bytes += take;
                self.files.push(SourceFile { path, name, bytes, take, digest, direct });
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

    /// What decides the documents besides the files: field, policy and limit.
    pub(super) fn reading(&self) -> impl Iterator<Item = Vec<u8>> {
        let skip = [u8::from(self.bad_lines == BadLines::Skip)];
        let reading =
            [self.field.clone().into_bytes(), skip.to_vec(), self.limit.to_le_bytes().into()];
        reading.into_iter()
    }

    /// Reads all files in order. `memory` gives the next part to fill, `take` gets it filled; a
    /// text is cut into several parts only where `cut` allows it.
    ///
    /// # Errors
    /// A file that vanished or changed, and whatever `memory` and `take` return.
    pub(super) fn for_each_part(
        &self,
        cut: Cut<'_>,
        memory: &mut dyn FnMut() -> Result<Part, DataError>,
        take: &mut dyn FnMut(Part) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let read = |file| parts::read(&self.key, file, cut, memory, take);
        self.files.iter().enumerate().try_for_each(read)
    }

    /// The texts of a part's documents. `visit` also hears whether one begins and ends here.
    ///
    /// # Errors
    /// A bad JSON line, unless it is to be skipped, and whatever `visit` returns.
    pub(super) fn documents(
        &self,
        part: &Part,
        visit: &mut dyn FnMut(&str, bool, bool) -> Result<(), DataError>,
    ) -> Result<PartCount, DataError> {
        let mut count = PartCount::default();
        let first = match part.kind {
            PartKind::Text { begins, ends } => {
                visit(&part.text, begins, ends)?;
                return Ok(count);
            }
            PartKind::Lines { first } => first,
        };
        let file = &self.files[part.file];
        for (line, text) in (first..).zip(part.text.split('\n')) {
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            match lines::text_of(text, &self.field) {
                Ok(text) if text.is_empty() => count.empty += 1,
                Ok(text) => visit(&text, true, true)?,
                Err(_) if self.bad_lines == BadLines::Skip && !file.direct => count.bad_lines += 1,
                Err(reason) => {
                    let (key, path) = (self.key.clone(), file.path.clone());
                    return Err(DataError::JsonLine { key, path, line, reason });
                }
            }
        }
        Ok(count)
    }

    /// Calls `visit` with all text in order, in pieces, on this thread; the flag says that a
    /// document begins.
    ///
    /// # Errors
    /// As [`Corpus::for_each_part`] and [`Corpus::documents`].
    pub fn for_each(
        &self,
        visit: &mut dyn FnMut(&str, bool) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        // A character's border will do.
        let cut: Cut<'_> = &|text| Some(text.len());
        self.for_each_part(cut, &mut || Ok(Part::default()), &mut |part| {
            self.documents(&part, &mut |text, begins, _| visit(text, begins)).map(drop)
        })
    }
}

/// Whether the name, without an ending of compression, ends like one of these.
fn has_extension(path: &Path, extensions: &[&str]) -> bool {
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
        walk(source, source, &mut found, skipped, TEXT_EXTENSIONS)?;
        Ok(found)
    } else {
        let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(vec![Candidate { path: source.to_owned(), name, direct: true }])
    }
}

/// Appends the files below `folder` whose extension is listed; names are relative to `root`.
pub(super) fn walk(
    root: &Path,
    folder: &Path,
    found: &mut Vec<Candidate>,
    skipped: &mut Skipped,
    extensions: &[&str],
) -> Result<(), DataError> {
    let mut entries = fs::read_dir(folder)
        .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
        .map_err(DataError::io(folder, "read"))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let link = entry.file_type().map_err(DataError::io(&path, "read"))?.is_symlink();
        let is_folder = fs::metadata(&path).map(|kind| kind.is_dir());
        // A link to a folder may be a loop, a link that leads nowhere is nothing.
        let unfollowed = link && !matches!(is_folder, Ok(false));
        if unfollowed || entry.file_name().as_encoded_bytes().starts_with(b".") {
            skipped.hidden += 1;
        } else if is_folder.map_err(DataError::io(&path, "read"))? {
            walk(root, &path, found, skipped, extensions)?;
        } else if has_extension(&path, extensions) {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            found.push(Candidate { path, name, direct: false });
        } else {
            skipped.other += 1;
        }
    }
    Ok(())
}

enum Content {
    Text { bytes: u64, digest: [u8; 32] },
    NotUtf8 { offset: u64 },
    Binary,
    Empty,
}

/// Reads a file once: is it text, how long is it, what is its hash. Holds 1 MiB of it.
fn inspect(
    key: &str,
    path: &Path,
    direct: bool,
    progress: &mut dyn FnMut(u64) -> Result<(), DataError>,
) -> Result<Content, DataError> {
    let mut source = Source::open(key, path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    // The unfinished character at the end of the last block, moved to the front of the buffer.
    let mut carried = 0;
    let mut bytes = 0u64;
    loop {
        let read = source.fill(&mut buffer[carried..])?;
        if read == 0 {
            break;
        }
        let block_start = bytes - carried as u64;
        let filled = carried + read;
        hasher.update(&buffer[carried..filled]);
        if !direct && bytes == 0 && buffer[..filled.min(BINARY_PROBE)].contains(&0) {
            return Ok(Content::Binary);
        }
        bytes += read as u64;
        carried = match std::str::from_utf8(&buffer[..filled]) {
            Ok(_) => 0,
            Err(error) if error.error_len().is_none() => {
                buffer.copy_within(error.valid_up_to()..filled, 0);
                filled - error.valid_up_to()
            }
            Err(error) => {
                return Ok(Content::NotUtf8 { offset: block_start + error.valid_up_to() as u64 });
            }
        };
        progress(bytes)?;
    }
    if carried > 0 {
        return Ok(Content::NotUtf8 { offset: bytes - carried as u64 });
    }
    if bytes == 0 {
        return Ok(Content::Empty);
    }
    Ok(Content::Text { bytes, digest: *hasher.finalize().as_bytes() })
}

#[cfg(test)]
mod tests;
