//! Reads a shard through a memory map.
//!
//! Duty: tokens and document starts, each chunk checked before its first byte is used.
//! Ownership: the map. Reads from several threads are fine and take no lock: a thread may check
//! a chunk that another one is checking, with the same result.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::Mmap;

use super::layout::{CHUNK_BYTES, CRC_BYTES, HEADER_BYTES, Header, START_BYTES, TokenWidth};
use super::{SHARD_EXTENSION, ShardSummary};
use crate::data::error::DataError;

/// A shard that is open for reading.
pub struct Shard {
    path: PathBuf,
    map: Mmap,
    header: Header,
    index_offset: u64,
    payload_bytes: u64,
    /// One bit per chunk: its checksum has been found right.
    verified: Box<[AtomicU64]>,
    /// It takes another name when it is found damaged.
    steps_aside: bool,
}

/// A type that tokens are read as.
pub trait Token: Copy {
    /// From a stored token.
    fn from_u16(token: u16) -> Self;
    /// From a stored token.
    fn from_u32(token: u32) -> Self;
}

impl Token for u32 {
    fn from_u16(token: u16) -> Self {
        token.into()
    }
    fn from_u32(token: u32) -> Self {
        token
    }
}

impl Token for i32 {
    fn from_u16(token: u16) -> Self {
        token.into()
    }
    fn from_u32(token: u32) -> Self {
        token as i32
    }
}

impl Shard {
    /// Maps the shard at `path` and checks its header, its length and its checksum table.
    ///
    /// # Errors
    /// [`DataError::Io`], or [`DataError::Shard`] that says what is wrong.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let refuse = |reason| DataError::Shard { path: path.to_owned(), reason };
        let file = File::open(path).map_err(DataError::io(path, "open"))?;
        // SAFETY: a shard is not changed after it was renamed to its name (see the module's
        // header), so the mapped bytes are constant while the map lives.
        let map = unsafe { Mmap::map(&file) }.map_err(DataError::io(path, "map"))?;
        let header = Header::parse(&map).map_err(refuse)?;
        let impossible = || refuse("its header has impossible counts".to_owned());
        let index_offset = header.index_offset().ok_or_else(impossible)?;
        let payload_bytes = header.payload_bytes().ok_or_else(impossible)?;
        let chunks = header.chunks().ok_or_else(impossible)?;
        if crc32c::crc32c(&map[(HEADER_BYTES + payload_bytes) as usize..]) != header.table_crc {
            return Err(refuse("its checksum table fails its own checksum".to_owned()));
        }
        let verified = (0..chunks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let (path, steps_aside) = (path.to_owned(), false);
        Ok(Self { path, map, header, index_offset, payload_bytes, verified, steps_aside })
    }

    /// The same shard, which takes another name when a read finds it damaged: then its data count
    /// as not prepared, and the next start makes them again from their text. Whoever has it open
    /// goes on with what is mapped.
    #[must_use]
    pub fn stepping_aside(self) -> Self {
        Self { steps_aside: true, ..self }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of tokens.
    pub fn tokens(&self) -> u64 {
        self.header.tokens
    }

    /// Number of documents that begin in this shard.
    pub fn documents(&self) -> u64 {
        self.header.documents
    }

    /// Digest of the tokenizer that made the tokens.
    pub fn tokenizer(&self) -> [u8; 32] {
        self.header.tokenizer
    }

    /// blake3 of the tokens as stored.
    pub fn contents(&self) -> [u8; 32] {
        self.header.contents
    }

    /// What the header says, for `octet inspect`.
    pub fn summary(&self) -> ShardSummary {
        ShardSummary {
            path: self.path.display().to_string(),
            version: Header::VERSION,
            token_bytes: self.header.width.bytes() as u32,
            tokens: self.header.tokens,
            documents: self.header.documents,
            tokenizer: blake3::Hash::from_bytes(self.header.tokenizer).to_hex().to_string(),
            contents: blake3::Hash::from_bytes(self.header.contents).to_hex().to_string(),
            file_bytes: self.map.len() as u64,
            chunks: self.payload_bytes.div_ceil(CHUNK_BYTES),
            first_tokens: Vec::new(),
            source: None,
            first_text: None,
        }
    }

    /// Copies the tokens from number `offset` on into `out`.
    ///
    /// # Errors
    /// [`DataError::Chunk`] if the bytes are damaged, [`DataError::OutOfRange`].
    pub fn read<T: Token>(&self, offset: u64, out: &mut [T]) -> Result<(), DataError> {
        let end = offset.saturating_add(out.len() as u64);
        if end > self.header.tokens {
            return Err(DataError::OutOfRange { start: offset, end, tokens: self.header.tokens });
        }
        let width = self.header.width.bytes();
        let bytes = self.checked(offset * width..end * width)?;
        match self.header.width {
            TokenWidth::U16 => {
                let stored: &[u16] = bytemuck::cast_slice(bytes);
                for (out, &token) in out.iter_mut().zip(stored) {
                    *out = T::from_u16(u16::from_le(token));
                }
            }
            TokenWidth::U32 => {
                let stored: &[u32] = bytemuck::cast_slice(bytes);
                for (out, &token) in out.iter_mut().zip(stored) {
                    *out = T::from_u32(u32::from_le(token));
                }
            }
        }
        Ok(())
    }

    /// Index of the first token of document number `document` of this shard.
    ///
    /// # Errors
    /// [`DataError::Chunk`] if the bytes are damaged.
    ///
    /// # Panics
    /// If there is no such document.
    pub fn document_start(&self, document: u64) -> Result<u64, DataError> {
        assert!(document < self.header.documents, "document {document} does not exist");
        let at = self.index_offset + document * START_BYTES;
        let bytes = self.checked(at..at + START_BYTES)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("an entry has eight bytes")))
    }

    /// How many documents begin before token number `token`.
    ///
    /// # Errors
    /// [`DataError::Chunk`] if the bytes are damaged.
    pub fn documents_before(&self, token: u64) -> Result<u64, DataError> {
        let (mut low, mut high) = (0, self.header.documents);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.document_start(middle)? < token {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Checks every chunk, whether it was checked before or not.
    ///
    /// # Errors
    /// [`DataError::Chunk`] for the first damaged chunk.
    pub fn verify(&self) -> Result<(), DataError> {
        (0..self.payload_bytes.div_ceil(CHUNK_BYTES)).try_for_each(|chunk| self.verify_chunk(chunk))
    }

    /// Bytes of the payload whose chunks have been found right, now or before.
    fn checked(&self, range: Range<u64>) -> Result<&[u8], DataError> {
        if range.start < range.end {
            for chunk in range.start / CHUNK_BYTES..=(range.end - 1) / CHUNK_BYTES {
                let word = &self.verified[(chunk / 64) as usize];
                let bit = 1 << (chunk % 64);
                // Relaxed is enough: the bit guards constant bytes, not another thread's writes.
                if word.load(Ordering::Relaxed) & bit == 0 {
                    self.verify_chunk(chunk).map_err(|damage| self.step_aside(damage))?;
                    word.fetch_or(bit, Ordering::Relaxed);
                }
            }
        }
        Ok(&self.payload()[range.start as usize..range.end as usize])
    }

    fn step_aside(&self, damage: DataError) -> DataError {
        match damage {
            DataError::Chunk { path, chunk, offset, end, .. } if self.steps_aside => {
                let to = path.with_extension(format!("{SHARD_EXTENSION}.damaged"));
                let aside = std::fs::rename(&path, &to).ok().map(|()| to);
                DataError::Chunk { path, chunk, offset, end, aside }
            }
            other => other,
        }
    }

    fn payload(&self) -> &[u8] {
        &self.map[HEADER_BYTES as usize..(HEADER_BYTES + self.payload_bytes) as usize]
    }

    fn verify_chunk(&self, chunk: u64) -> Result<(), DataError> {
        let start = chunk * CHUNK_BYTES;
        let end = (start + CHUNK_BYTES).min(self.payload_bytes);
        let entry = (HEADER_BYTES + self.payload_bytes + chunk * CRC_BYTES) as usize;
        let expected = &self.map[entry..entry + CRC_BYTES as usize];
        let found = crc32c::crc32c(&self.payload()[start as usize..end as usize]);
        if found.to_le_bytes() != expected {
            return Err(DataError::Chunk {
                path: self.path.clone(),
                chunk,
                offset: HEADER_BYTES + start,
                end: HEADER_BYTES + end,
                aside: None,
            });
        }
        Ok(())
    }
}
