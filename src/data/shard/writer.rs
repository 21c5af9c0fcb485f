//! Writes a shard in one pass.
//!
//! Duty: a shard appears under its name only when it is whole: temporary file beside it, sync,
//! rename, sync of the folder. Ownership: the temporary file, removed if the writer is dropped
//! unfinished. Limits: 8 bytes of memory per document.

use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::layout::{CHUNK_BYTES, HEADER_BYTES, Header, START_BYTES, TokenWidth};
use super::{Shard, ShardSummary};
use crate::data::error::DataError;

const BUFFER_BYTES: usize = 1 << 20;

/// A shard that is being written.
pub struct ShardWriter {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    width: TokenWidth,
    tokenizer: [u8; 32],
    tokens: u64,
    starts: Vec<u64>,
    contents: blake3::Hasher,
    /// Checksums of the whole chunks, and that of the bytes behind them.
    table: Vec<u32>,
    chunk_crc: u32,
    chunk_filled: u64,
    scratch: Vec<u8>,
    finished: bool,
}

impl ShardWriter {
    /// Begins a shard at `path` of tokens below `vocabulary`, made by the tokenizer with this
    /// digest.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn create(path: &Path, vocabulary: usize, tokenizer: [u8; 32]) -> Result<Self, DataError> {
        let temporary = temporary_path(path);
        let file = File::create(&temporary).map_err(DataError::io(&temporary, "create"))?;
        let mut writer = Self {
            path: path.to_owned(),
            temporary,
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            width: TokenWidth::for_vocabulary(vocabulary),
            tokenizer,
            tokens: 0,
            starts: Vec::new(),
            contents: blake3::Hasher::new(),
            table: Vec::new(),
            chunk_crc: 0,
            chunk_filled: 0,
            scratch: Vec::new(),
            finished: false,
        };
        // The header's place; what stands there is known at the end.
        writer.write(&[0; HEADER_BYTES as usize])?;
        Ok(writer)
    }

    /// Tokens written so far.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Says that a document begins with the next token.
    pub fn begin_document(&mut self) {
        self.starts.push(self.tokens);
    }

    /// Appends tokens.
    ///
    /// # Errors
    /// [`DataError::Io`].
    ///
    /// # Panics
    /// If a token does not fit the width that the vocabulary asked for.
    pub fn push(&mut self, tokens: &[u32]) -> Result<(), DataError> {
        for block in tokens.chunks(BUFFER_BYTES / 4) {
            let mut bytes = std::mem::take(&mut self.scratch);
            bytes.clear();
            match self.width {
                TokenWidth::U16 => bytes.extend(block.iter().flat_map(|&token| {
                    u16::try_from(token).expect("a token is below the vocabulary").to_le_bytes()
                })),
                TokenWidth::U32 => bytes.extend(block.iter().flat_map(|token| token.to_le_bytes())),
            }
            self.contents.update(&bytes);
            self.tokens += block.len() as u64;
            self.payload(&bytes)?;
            self.scratch = bytes;
        }
        Ok(())
    }

    /// Completes the shard and gives it its name.
    ///
    /// # Errors
    /// [`DataError::Io`], or what [`Shard::open`] finds wrong with the result.
    pub fn finish(mut self) -> Result<ShardSummary, DataError> {
        let token_bytes = self.tokens * self.width.bytes();
        let padding = token_bytes.next_multiple_of(START_BYTES) - token_bytes;
        self.payload(&[0; START_BYTES as usize][..padding as usize])?;
        let starts = std::mem::take(&mut self.starts);
        for block in starts.chunks(BUFFER_BYTES / 8) {
            self.payload(&block.iter().flat_map(|at| at.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        if self.chunk_filled > 0 {
            self.table.push(self.chunk_crc);
        }
        let table: Vec<u8> = self.table.iter().flat_map(|crc| crc.to_le_bytes()).collect();
        self.write(&table)?;
        let header = Header {
            width: self.width,
            tokens: self.tokens,
            documents: starts.len() as u64,
            tokenizer: self.tokenizer,
            contents: *self.contents.finalize().as_bytes(),
            table_crc: crc32c::crc32c(&table),
        };
        self.file.seek(SeekFrom::Start(0)).map_err(DataError::io(&self.temporary, "write"))?;
        self.write(&header.to_bytes())?;
        self.file.flush().map_err(DataError::io(&self.temporary, "write"))?;
        self.file.get_ref().sync_all().map_err(DataError::io(&self.temporary, "sync"))?;
        fs::rename(&self.temporary, &self.path).map_err(DataError::io(&self.path, "rename"))?;
        self.finished = true;
        sync_folder_of(&self.path)?;
        Ok(Shard::open(&self.path)?.summary())
    }

    /// Writes payload bytes and keeps the checksums of their chunks.
    fn payload(&mut self, mut bytes: &[u8]) -> Result<(), DataError> {
        while !bytes.is_empty() {
            let room = (CHUNK_BYTES - self.chunk_filled) as usize;
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.chunk_crc = crc32c::crc32c_append(self.chunk_crc, now);
            self.chunk_filled += now.len() as u64;
            if self.chunk_filled == CHUNK_BYTES {
                self.table.push(self.chunk_crc);
                self.chunk_crc = 0;
                self.chunk_filled = 0;
            }
            self.write(now)?;
            bytes = rest;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        self.file.write_all(bytes).map_err(DataError::io(&self.temporary, "write"))
    }
}

impl Drop for ShardWriter {
    fn drop(&mut self) {
        if !self.finished {
            // Nobody is left to tell; a file that stays is cleaned up by the next preparation.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// A name beside `path` that no other process writes to.
fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// Makes a rename in the folder of `path` survive a power cut.
pub(in crate::data) fn sync_folder_of(path: &Path) -> Result<(), DataError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(DataError::io(folder, "sync"))
}
