//! Documents, in an order that depends on names and contents only.
//!
//! Duty: finds the files of `data.text`, checks and hashes them once ([`Corpus::scan`]), and
//! reads their documents as often as needed ([`Corpus::for_each`]) without holding more than
//! one file. A file is one document; each line of a `.jsonl` file is one. Folders are read in
//! path order; only files whose name ends like text ([`TEXT_EXTENSIONS`]) count.
//! Prohibition: changes no character of a text; knows no tokens.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cargo;
use super::config::TextSpec;
use super::error::DataError;

/// The extensions, in lower case, that a file in a folder must have to be read.
pub const TEXT_EXTENSIONS: &[&str] = &[
    "txt", "text", "md", "markdown", "rst", "adoc", "org", "tex", "html", "htm", "xml", "csv",
    "tsv", "json", "jsonl", "toml", "yaml", "yml", "ini", "cfg", "rs", "py", "c", "h", "cc", "cpp",
    "hpp", "cu", "cuh", "go", "java", "kt", "scala", "js", "ts", "jsx", "tsx", "css", "swift",
    "rb", "php", "pl", "lua", "r", "jl", "hs", "ml", "ex", "erl", "clj", "zig", "sh", "sql",
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
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { not_utf8, binary, hidden, other, empty, large } = self;
        write!(
            f,
            "skipped: {not_utf8} not UTF-8, {binary} binary, {hidden} hidden, \
             {other} without a text extension, {empty} empty, {large} too large"
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
    /// Length in bytes.
    pub bytes: u64,
    /// blake3 of the contents.
    pub digest: [u8; 32],
}

impl SourceFile {
    fn is_json_lines(&self) -> bool {
        has_extension(&self.path, &["jsonl"])
    }
}

/// One text, borrowed while it is read.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// The text as it stands in the file.
    pub text: &'a str,
    /// The file that it comes from.
    pub path: &'a Path,
}

/// The checked list of files.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// In reading order.
    pub files: Vec<SourceFile>,
    /// What was passed over while the files were found.
    pub skipped: Skipped,
    /// Sum of the files' lengths.
    pub bytes: u64,
}

/// A file that was found but not yet looked into.
pub(super) struct Candidate {
    pub(super) path: PathBuf,
    pub(super) name: String,
    /// Named by the user: a file that is not UTF-8 is an error instead of a count.
    pub(super) direct: bool,
}

impl Corpus {
    /// Finds, checks and hashes the files of `text`. `progress` gets bytes done so far.
    ///
    /// # Errors
    /// A source that does not exist, a directly named file that is not UTF-8, no text at all.
    pub fn scan(text: &TextSpec, progress: &mut dyn FnMut(u64)) -> Result<Self, DataError> {
        let mut corpus = Self { files: Vec::new(), skipped: Skipped::default(), bytes: 0 };
        for source in &text.0 {
            if source == "cargo" {
                let found = cargo::find(&cargo::registry_folder(), &mut corpus.skipped)?;
                let limit = corpus.bytes + cargo::CORPUS_BYTES;
                for candidate in found {
                    if !corpus.add(candidate, limit, progress)? {
                        break;
                    }
                }
            } else {
                for candidate in find(Path::new(source), &mut corpus.skipped)? {
                    corpus.add(candidate, u64::MAX, progress)?;
                }
            }
        }
        if corpus.files.is_empty() {
            return Err(corpus.no_text(text));
        }
        Ok(corpus)
    }

    /// Looks into one file; false if it would take the corpus past `limit` bytes.
    fn add(
        &mut self,
        candidate: Candidate,
        limit: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<bool, DataError> {
        let Candidate { path, name, direct } = candidate;
        match inspect(&path, direct)? {
            Content::Text { bytes, .. } if self.bytes + bytes > limit => return Ok(false),
            Content::Text { bytes, digest } => {
                self.bytes += bytes;
                self.files.push(SourceFile { path, name, bytes, digest });
            }
            Content::NotUtf8 { offset } if direct => {
                return Err(DataError::NotUtf8 { path, offset });
            }
            Content::NotUtf8 { .. } => self.skipped.not_utf8 += 1,
            Content::Binary => self.skipped.binary += 1,
            Content::Empty => self.skipped.empty += 1,
        }
        progress(self.bytes);
        Ok(true)
    }

    /// The error for a corpus without a single document.
    pub(super) fn no_text(&self, text: &TextSpec) -> DataError {
        DataError::EmptyCorpus { sources: text.to_string(), skipped: self.skipped }
    }

    /// Calls `visit` with every document, in order. Returns the number of empty JSON lines.
    ///
    /// # Errors
    /// A broken JSON line, a file that vanished or changed, and whatever `visit` returns.
    pub fn for_each(
        &self,
        visit: &mut dyn FnMut(Document<'_>) -> Result<(), DataError>,
    ) -> Result<u64, DataError> {
        let mut empty = 0;
        for file in &self.files {
            if file.is_json_lines() {
                empty += for_each_line(&file.path, visit)?;
            } else {
                let bytes = fs::read(&file.path).map_err(DataError::io(&file.path, "read"))?;
                let text = String::from_utf8(bytes).map_err(|error| DataError::NotUtf8 {
                    path: file.path.clone(),
                    offset: error.utf8_error().valid_up_to() as u64,
                })?;
                visit(Document { text: &text, path: &file.path })?;
            }
        }
        Ok(empty)
    }
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| extensions.contains(&extension.to_ascii_lowercase().as_str()))
}

/// The files of one source: itself, or everything readable below it in path order.
fn find(source: &Path, skipped: &mut Skipped) -> Result<Vec<Candidate>, DataError> {
    let kind = match fs::metadata(source) {
        Ok(kind) => kind,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(DataError::Missing { path: source.to_owned() });
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
fn inspect(path: &Path, direct: bool) -> Result<Content, DataError> {
    let mut file = File::open(path).map_err(DataError::io(path, "open"))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    // The unfinished character at the end of the last block, moved to the front of the buffer.
    let mut carried = 0;
    let mut bytes = 0u64;
    loop {
        let read = match file.read(&mut buffer[carried..]) {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(DataError::io(path, "read")(error)),
        };
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
    }
    if carried > 0 {
        return Ok(Content::NotUtf8 { offset: bytes - carried as u64 });
    }
    if bytes == 0 {
        return Ok(Content::Empty);
    }
    Ok(Content::Text { bytes, digest: *hasher.finalize().as_bytes() })
}

#[derive(Deserialize)]
struct JsonDocument {
    text: String,
}

/// Visits each line's `"text"`; returns how many were empty. Blank lines are nothing.
fn for_each_line(
    path: &Path,
    visit: &mut dyn FnMut(Document<'_>) -> Result<(), DataError>,
) -> Result<u64, DataError> {
    let file = File::open(path).map_err(DataError::io(path, "open"))?;
    let mut reader = BufReader::with_capacity(READ_BYTES, file);
    let mut line = String::new();
    let mut empty = 0;
    for number in 1.. {
        line.clear();
        if reader.read_line(&mut line).map_err(DataError::io(path, "read"))? == 0 {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        let document: JsonDocument = serde_json::from_str(line.trim_end()).map_err(|error| {
            DataError::JsonLine { path: path.to_owned(), line: number, reason: json_reason(&error) }
        })?;
        if document.text.is_empty() {
            empty += 1;
        } else {
            visit(Document { text: &document.text, path })?;
        }
    }
    Ok(empty)
}

/// The parser's complaint without its own line number, which is always 1 here.
fn json_reason(error: &serde_json::Error) -> String {
    let complaint = error.to_string();
    let complaint = complaint.split(" at line ").next().unwrap_or_default();
    format!(
        "expected a JSON object with a string \"text\": {complaint} (column {})",
        error.column()
    )
}

#[cfg(test)]
mod tests;
