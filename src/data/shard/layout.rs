//! The header of a shard and where its sections lie.
//!
//! Duty: header to bytes and back, with every check that needs the header and the file's
//! length only. Prohibition: reads and writes no file.

/// Bytes of the header, and where the payload begins.
pub(super) const HEADER_BYTES: u64 = 4096;
/// Payload bytes under one checksum.
pub(super) const CHUNK_BYTES: u64 = 1 << 20;
/// Bytes of one entry of the document index.
pub(super) const START_BYTES: u64 = 8;
/// Bytes of one checksum.
pub(super) const CRC_BYTES: u64 = 4;

const MAGIC: [u8; 8] = *b"OCTSHARD";
const VERSION: u32 = 1;
/// Bytes of the header that its checksum, which follows them, covers.
const COVERED_BYTES: usize = 104;

/// How many bytes one token takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenWidth {
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
}

impl TokenWidth {
    /// The narrowest width for ids below `vocabulary`.
    pub fn for_vocabulary(vocabulary: usize) -> Self {
        if vocabulary <= 1 << 16 { Self::U16 } else { Self::U32 }
    }

    /// Bytes per token.
    pub fn bytes(self) -> u64 {
        match self {
            Self::U16 => 2,
            Self::U32 => 4,
        }
    }
}

/// Everything that the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) width: TokenWidth,
    pub(super) tokens: u64,
    pub(super) documents: u64,
    pub(super) tokenizer: [u8; 32],
    pub(super) contents: [u8; 32],
    pub(super) table_crc: u32,
}

impl Header {
    pub(super) const VERSION: u32 = VERSION;

    /// Bytes of the tokens with their padding: where the document index begins.
    pub(super) fn index_offset(&self) -> Option<u64> {
        self.tokens.checked_mul(self.width.bytes())?.checked_next_multiple_of(START_BYTES)
    }

    /// Bytes of tokens and document index.
    pub(super) fn payload_bytes(&self) -> Option<u64> {
        self.documents.checked_mul(START_BYTES)?.checked_add(self.index_offset()?)
    }

    pub(super) fn chunks(&self) -> Option<u64> {
        Some(self.payload_bytes()?.div_ceil(CHUNK_BYTES))
    }

    /// The length that the file must have; `None` if the counts are absurd.
    pub(super) fn file_bytes(&self) -> Option<u64> {
        let table = self.chunks()?.checked_mul(CRC_BYTES)?;
        HEADER_BYTES.checked_add(self.payload_bytes()?)?.checked_add(table)
    }

    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        let mut put = Fields { bytes: &mut bytes, at: 0 };
        put.next(&MAGIC);
        put.next(&VERSION.to_le_bytes());
        put.next(&(self.width.bytes() as u32).to_le_bytes());
        put.next(&self.tokens.to_le_bytes());
        put.next(&self.documents.to_le_bytes());
        put.next(&self.tokenizer);
        put.next(&self.contents);
        put.next(&self.table_crc.to_le_bytes());
        // Four bytes in reserve, zero in version 1.
        put.next(&[0; 4]);
        assert_eq!(put.at, COVERED_BYTES);
        let crc = crc32c::crc32c(&bytes[..COVERED_BYTES]);
        bytes[COVERED_BYTES..COVERED_BYTES + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header; an error says what is wrong with the file.
    pub(super) fn parse(file: &[u8]) -> Result<Self, String> {
        if file.len() < HEADER_BYTES as usize {
            return Err(format!("it ends after {} bytes, inside the header", file.len()));
        }
        let mut take = Taken { bytes: file };
        if take.next::<8>() != MAGIC {
            return Err("it does not begin with OCTSHARD".to_owned());
        }
        let version = u32::from_le_bytes(take.next());
        if version != VERSION {
            return Err(format!("it has version {version}, this program reads {VERSION}"));
        }
        let stored = &file[COVERED_BYTES..COVERED_BYTES + 4];
        if crc32c::crc32c(&file[..COVERED_BYTES]).to_le_bytes() != stored {
            return Err("its header fails its checksum".to_owned());
        }
        let width = match u32::from_le_bytes(take.next()) {
            2 => TokenWidth::U16,
            4 => TokenWidth::U32,
            other => return Err(format!("it has tokens of {other} bytes")),
        };
        let header = Self {
            width,
            tokens: u64::from_le_bytes(take.next()),
            documents: u64::from_le_bytes(take.next()),
            tokenizer: take.next(),
            contents: take.next(),
            table_crc: u32::from_le_bytes(take.next()),
        };
        match header.file_bytes() {
            Some(expected) if expected == file.len() as u64 => Ok(header),
            Some(expected) => {
                Err(format!("it has {} bytes where its header says {expected}", file.len()))
            }
            None => Err("its header has impossible counts".to_owned()),
        }
    }
}

struct Fields<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Fields<'_> {
    fn next(&mut self, field: &[u8]) {
        self.bytes[self.at..self.at + field.len()].copy_from_slice(field);
        self.at += field.len();
    }
}

struct Taken<'a> {
    bytes: &'a [u8],
}

impl Taken<'_> {
    fn next<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.bytes.split_first_chunk().expect("the header is whole");
        self.bytes = rest;
        *field
    }
}
