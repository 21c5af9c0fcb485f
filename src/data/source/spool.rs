//! Documents on disk between two stages of the preparation.
//!
//! Duty: blocks of whole documents, compressed, each with a checksum; written in order, read as
//! parts. Ownership: none; the stage that writes one removes it. Limits: holds one block.
//! Prohibition: nothing that outlives a preparation is in this format.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::SourceFile;
use super::parts::{Part, PartKind, Piece, Record};
use crate::data::error::DataError;

const MAGIC: u32 = u32::from_le_bytes(*b"ODOC");
/// Words of a block's header: magic, documents, bytes of the payload, bytes as packed, checksum.
const HEADER_WORDS: usize = 5;
const HEADER_BYTES: usize = HEADER_WORDS * 4;
/// Words of each document's entry: text bytes, file, offset (two), address bytes.
const ENTRY_WORDS: usize = 5;
/// Of the disk's speed and the compressor's: the fastest level.
const LEVEL: i32 = 1;

/// Documents of one block.
#[derive(Default)]
pub(in crate::data) struct Block {
    entries: Vec<u8>,
    texts: Vec<u8>,
    urls: Vec<u8>,
    documents: u32,
}

/// A block as it is written.
pub(in crate::data) struct Packed {
    bytes: Vec<u8>,
    documents: u64,
    text_bytes: u64,
}

impl Block {
    /// Appends a document with its text as it is now.
    pub(in crate::data) fn push(&mut self, document: &Piece<'_>) {
        let (text, url) = (document.text.as_bytes(), document.url.as_bytes());
        let offset = document.offset;
        for word in [text.len() as u32, document.file as u32, offset as u32] {
            self.entries.extend(word.to_le_bytes());
        }
        for word in [(offset >> 32) as u32, url.len() as u32] {
            self.entries.extend(word.to_le_bytes());
        }
        self.texts.extend_from_slice(text);
        self.urls.extend_from_slice(url);
        self.documents += 1;
    }

    /// Moves the documents of another block behind its own.
    pub(in crate::data) fn append(&mut self, other: &mut Self) {
        self.entries.append(&mut other.entries);
        self.texts.append(&mut other.texts);
        self.urls.append(&mut other.urls);
        self.documents += std::mem::take(&mut other.documents);
    }

    /// Bytes of text in it.
    pub(in crate::data) fn text_bytes(&self) -> usize {
        self.texts.len()
    }

    /// Packs and empties it. Nothing comes of an empty one.
    pub(in crate::data) fn pack(&mut self) -> Option<Packed> {
        let Self { entries, texts, urls, documents } = std::mem::take(self);
        if documents == 0 {
            return None;
        }
        let text_bytes = texts.len() as u64;
        let mut payload = entries;
        payload.extend_from_slice(&texts);
        payload.extend_from_slice(&urls);
        let packed = zstd::bulk::compress(&payload, LEVEL).expect("memory takes every byte");
        let crc = crc32c::crc32c(&packed);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + packed.len());
        for word in [MAGIC, documents, payload.len() as u32, packed.len() as u32, crc] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend_from_slice(&packed);
        Some(Packed { bytes, documents: u64::from(documents), text_bytes })
    }
}

/// A file of documents.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(in crate::data) struct Spooled {
    pub(in crate::data) path: PathBuf,
    /// Bytes of the file.
    pub(in crate::data) bytes: u64,
    /// UTF-8 bytes of text in it.
    pub(in crate::data) text_bytes: u64,
    pub(in crate::data) documents: u64,
}

/// A file of documents that is being written.
pub(in crate::data) struct SpoolWriter {
    file: File,
    spooled: Spooled,
}

impl SpoolWriter {
    /// Begins a file, or goes on behind what is known of it.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub(in crate::data) fn open(path: &Path, known: Option<&Spooled>) -> Result<Self, DataError> {
        let io = DataError::io(path, "create");
        let options = File::options().write(true).create(true).truncate(false).open(path);
        let mut file = options.map_err(io)?;
        let spooled = match known {
            Some(known) => known.clone(),
            None => Spooled { path: path.to_owned(), bytes: 0, text_bytes: 0, documents: 0 },
        };
        file.set_len(spooled.bytes)
            .and_then(|()| file.seek(SeekFrom::Start(spooled.bytes)).map(drop))
            .map_err(DataError::io(path, "write"))?;
        Ok(Self { file, spooled })
    }

    /// Appends a block.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub(in crate::data) fn push(&mut self, block: &Packed) -> Result<(), DataError> {
        let path = &self.spooled.path;
        self.file.write_all(&block.bytes).map_err(DataError::io(path, "write"))?;
        self.spooled.bytes += block.bytes.len() as u64;
        self.spooled.documents += block.documents;
        self.spooled.text_bytes += block.text_bytes;
        Ok(())
    }

    /// What is written, and is on the disk when this returns.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub(in crate::data) fn sync(&mut self) -> Result<Spooled, DataError> {
        self.file.sync_data().map_err(DataError::io(&self.spooled.path, "write"))?;
        Ok(self.spooled.clone())
    }
}

/// Reads a file of documents block by block.
pub(super) fn read(
    file: &SourceFile,
    memory: &mut dyn FnMut() -> Result<Part, DataError>,
    take: &mut dyn FnMut(Part) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let failed = |error: io::Error| DataError::io(&file.path, "read")(error);
    let mut input = io::BufReader::with_capacity(1 << 20, File::open(&file.path).map_err(failed)?);
    let (mut left, mut first_document) = (file.bytes, 0);
    let mut packed = Vec::new();
    while left > 0 {
        let mut header = [0; HEADER_BYTES];
        input.read_exact(&mut header).map_err(failed)?;
        let [magic, documents, raw, bytes, crc] = words(&header);
        packed.resize(bytes as usize, 0);
        if magic == MAGIC {
            input.read_exact(&mut packed).map_err(failed)?;
        }
        if magic != MAGIC || crc32c::crc32c(&packed) != crc {
            return Err(failed(io::Error::other("a block of documents is damaged")));
        }
        let payload = zstd::bulk::decompress(&packed, raw as usize).map_err(failed)?;
        let mut part = memory()?;
        part.clear();
        part.kind = PartKind::Records;
        part.first_document = first_document;
        unpack(&payload, documents as usize, &mut part).map_err(failed)?;
        first_document += u64::from(documents);
        left = left.saturating_sub((HEADER_BYTES + packed.len()) as u64);
        take(part)?;
    }
    Ok(())
}

fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    std::array::from_fn(|i| {
        u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
    })
}

fn unpack(payload: &[u8], documents: usize, part: &mut Part) -> io::Result<()> {
    let damaged = || io::Error::other("a block of documents is damaged");
    let entries = payload.get(..documents * ENTRY_WORDS * 4).ok_or_else(damaged)?;
    let (mut end, mut url_lengths) = (0, Vec::with_capacity(documents));
    for entry in entries.chunks_exact(ENTRY_WORDS * 4) {
        let [text, file, low, high, url] = words(entry);
        end += text as usize;
        let offset = u64::from(low) | u64::from(high) << 32;
        let record = Record { end, file: file as usize, offset, url: String::new() };
        part.records.push(record);
        url_lengths.push(url as usize);
    }
    let rest = &payload[entries.len()..];
    let texts = rest.get(..end).ok_or_else(damaged)?;
    part.text.push_str(std::str::from_utf8(texts).map_err(|_| damaged())?);
    let mut urls = &rest[end..];
    for (record, length) in part.records.iter_mut().zip(url_lengths) {
        let (url, after) = urls.split_at_checked(length).ok_or_else(damaged)?;
        record.url.push_str(std::str::from_utf8(url).map_err(|_| damaged())?);
        urls = after;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
