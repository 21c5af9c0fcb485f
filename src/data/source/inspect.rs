//! A first look at a file: what it holds, how long it is, what its hash is.
//!
//! Duty: reads a file once; a text must be UTF-8. Limits: holds a megabyte of it. Prohibition:
//! decides nothing about what is refused.

use std::path::Path;

use super::format::Format;
use super::read::Source;
use super::{Fields, READ_BYTES};
use crate::data::error::DataError;

/// Bytes at the start of a file in which a zero byte means "binary".
const BINARY_PROBE: usize = 8 << 10;

/// What was found.
pub(super) enum Content {
    Text {
        bytes: u64,
        digest: [u8; 32],
        format: Format,
    },
    NotUtf8 {
        offset: u64,
    },
    /// It cannot be unpacked from a byte of its text on.
    Damaged {
        offset: u64,
        error: DataError,
    },
    Binary,
    Empty,
}

/// A file to look into.
pub(super) struct Look<'a> {
    pub(super) key: &'a str,
    pub(super) path: &'a Path,
    pub(super) direct: bool,
    pub(super) fields: &'a Fields,
}

impl Look<'_> {
    /// Reads the file to its end.
    pub(super) fn inspect(
        &self,
        progress: &mut dyn FnMut(u64) -> Result<(), DataError>,
    ) -> Result<Content, DataError> {
        let mut source = Source::open(self.key, self.path)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut format = None;
        // The unfinished character at the end of the last block, moved to the front of the buffer.
        let mut carried = 0;
        let mut bytes = 0u64;
        loop {
            let read = match source.fill(&mut buffer[carried..]) {
                Err(error @ DataError::Compressed { .. }) => {
                    return Ok(Content::Damaged { offset: bytes, error });
                }
                read => read?,
            };
            if read == 0 {
                break;
            }
            let block_start = bytes - carried as u64;
            let filled = carried + read;
            hasher.update(&buffer[carried..filled]);
            bytes += read as u64;
            let format = *format
                .get_or_insert_with(|| Format::of(self.path, &buffer[..filled], self.fields));
            if format.is_characters() {
                let probe = filled.min(BINARY_PROBE);
                if block_start == 0 && !self.direct && buffer[..probe].contains(&0) {
                    return Ok(Content::Binary);
                }
                carried = match std::str::from_utf8(&buffer[..filled]) {
                    Ok(_) => 0,
                    // A line of it that is none is a bad record.
                    Err(_) if format == Format::JsonLines => 0,
                    Err(error) if error.error_len().is_none() => {
                        buffer.copy_within(error.valid_up_to()..filled, 0);
                        filled - error.valid_up_to()
                    }
                    Err(error) => {
                        let offset = block_start + error.valid_up_to() as u64;
                        return Ok(Content::NotUtf8 { offset });
                    }
                };
            }
            progress(bytes)?;
        }
        if carried > 0 {
            return Ok(Content::NotUtf8 { offset: bytes - carried as u64 });
        }
        let Some(format) = format else { return Ok(Content::Empty) };
        Ok(Content::Text { bytes, digest: *hasher.finalize().as_bytes(), format })
    }
}
