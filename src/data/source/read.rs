//! Files as streams of bytes, decompressed as their name says, or else their first bytes.
//!
//! Duty: the bytes, and an error that tells a damaged archive from a disk that refuses; for records
//! also their place, and whether the file is the one that was scanned. Prohibition: knows no format
//! of documents.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;

use super::SourceFile;
use crate::data::error::DataError;

/// Bytes that are asked of the system at once.
const BUFFER_BYTES: usize = 1 << 18;
/// The longest window that the format's own tool writes, 2 GiB.
const WINDOW_LOG2_MAX: u32 = 31;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstandard,
    Bzip2,
    Xz,
}

/// What compressed files begin with.
const SIGNS: [(&[u8], Compression); 4] = [
    (&[0x1f, 0x8b, 8], Compression::Gzip),
    (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstandard),
    (b"\xfd7zXZ\0", Compression::Xz),
    (b"BZh", Compression::Bzip2),
];
/// Of a block of bzip2, behind its sign and a digit.
const BZIP2_BLOCK: &[u8] = b"1AY&SY";

impl Compression {
    /// Its name; `None` for plain bytes.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Zstandard => Some("Zstandard"),
            Self::Bzip2 => Some("bzip2"),
            Self::Xz => Some("xz"),
        }
    }

    /// By the name; and the name without its ending.
    pub(super) fn of(path: &Path) -> (Self, PathBuf) {
        let ending = path.extension().map(|end| end.to_ascii_lowercase());
        match ending.as_deref().and_then(|end| end.to_str()) {
            Some("gz") => (Self::Gzip, path.with_extension("")),
            Some("zst" | "zstd") => (Self::Zstandard, path.with_extension("")),
            Some("bz2") => (Self::Bzip2, path.with_extension("")),
            Some("xz") => (Self::Xz, path.with_extension("")),
            Some("tgz") => (Self::Gzip, path.with_extension("tar")),
            _ => (Self::None, path.to_owned()),
        }
    }

    /// By the first bytes.
    fn by_sign(head: &[u8]) -> Self {
        let begins = |(sign, _): &&(&[u8], Self)| head.starts_with(sign);
        match SIGNS.iter().find(begins).map(|(_, compression)| *compression) {
            Some(Self::Bzip2) if head.get(4..10) != Some(BZIP2_BLOCK) => Self::None,
            found => found.unwrap_or(Self::None),
        }
    }
}

/// The content of a file.
pub(super) struct Source {
    key: String,
    path: PathBuf,
    /// The format, if it is compressed.
    format: Option<&'static str>,
    stream: Box<dyn Read + Send>,
}

impl Source {
    /// Opens a file of the source that `key` names.
    ///
    /// # Errors
    /// [`DataError::Io`], [`DataError::Compressed`].
    pub(super) fn open(key: &str, path: &Path) -> Result<Self, DataError> {
        let file = File::open(path).map_err(DataError::io(path, "open"))?;
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        let compression = match Compression::of(path).0 {
            Compression::None => {
                Compression::by_sign(file.fill_buf().map_err(DataError::io(path, "read"))?)
            }
            named => named,
        };
        let stream: Box<dyn Read + Send> = match compression {
            Compression::None => Box::new(file),
            Compression::Gzip => Box::new(MultiGzDecoder::new(file)),
            Compression::Bzip2 => Box::new(MultiBzDecoder::new(file)),
            Compression::Xz => Box::new(XzDecoder::new_multi_decoder(file)),
            Compression::Zstandard => {
                Box::new(long_windows(file).map_err(DataError::io(path, "open"))?)
            }
        };
        let (key, path, format) = (key.to_owned(), path.to_owned(), compression.name());
        Ok(Self { key, path, format, stream })
    }

    /// Reads until the buffer is full; fewer bytes only at the end.
    ///
    /// # Errors
    /// [`DataError::Io`], [`DataError::Compressed`].
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, DataError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(filled)
    }

    /// What an error of reading means.
    pub(super) fn failed(&self, error: io::Error) -> DataError {
        // The system's own errors have a number.
        let Some(format) = self.format.filter(|_| error.raw_os_error().is_none()) else {
            return DataError::io(&self.path, "read")(error);
        };
        let (key, path) = (self.key.clone(), self.path.clone());
        DataError::Compressed { key, format, path, reason: error.to_string() }
    }
}

/// A decoder that takes what `zstd --long=31` and `--ultra` write. Its memory is the window that a
/// file declares, of which no more is touched than there is text.
fn long_windows(file: BufReader<File>) -> io::Result<zstd::Decoder<'static, BufReader<File>>> {
    let mut decoder = zstd::Decoder::with_buffer(file)?;
    decoder.window_log_max(WINDOW_LOG2_MAX)?;
    Ok(decoder)
}

/// Hashes what it gives.
struct Hashed {
    source: Source,
    hasher: blake3::Hasher,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.stream.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// The content of a file, record by record.
pub(super) struct Input {
    inner: BufReader<Hashed>,
    position: u64,
}

impl Input {
    /// As [`Source::open`].
    pub(super) fn open(key: &str, path: &Path) -> Result<Self, DataError> {
        let hashed = Hashed { source: Source::open(key, path)?, hasher: blake3::Hasher::new() };
        Ok(Self { inner: BufReader::with_capacity(BUFFER_BYTES, hashed), position: 0 })
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Reads up to and with the next line feed; `line` gets at most so many bytes of it. Gives the
    /// bytes read, 0 at the end.
    pub(super) fn line(&mut self, line: &mut Vec<u8>, most: usize) -> Result<usize, DataError> {
        line.clear();
        let mut read = 0;
        loop {
            let bytes = self.filled()?;
            let end = bytes.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
            let length = end.unwrap_or(bytes.len());
            line.extend_from_slice(&bytes[..length.min(most - line.len())]);
            self.inner.consume(length);
            self.position += length as u64;
            read += length;
            if end.is_some() || length == 0 {
                return Ok(read);
            }
        }
    }

    /// Reads so many bytes; `content` gets at most `most` of them. Gives the bytes read, fewer only
    /// at the end.
    pub(super) fn content(
        &mut self,
        length: u64,
        content: &mut Vec<u8>,
        most: usize,
    ) -> Result<u64, DataError> {
        content.clear();
        let mut read = 0;
        while read < length {
            let bytes = self.filled()?;
            let now = bytes.len().min(usize::try_from(length - read).unwrap_or(usize::MAX));
            if now == 0 {
                break;
            }
            content.extend_from_slice(&bytes[..now.min(most - content.len())]);
            self.inner.consume(now);
            read += now as u64;
        }
        self.position += read;
        Ok(read)
    }

    /// What comes next, as much as there is; nothing at the end.
    fn filled(&mut self) -> Result<&[u8], DataError> {
        let failed = self.inner.fill_buf().err();
        match failed {
            Some(error) => Err(self.inner.get_ref().source.failed(error)),
            None => Ok(self.inner.buffer()),
        }
    }

    /// Reads to the end, and refuses a file that is not the one that was scanned.
    ///
    /// # Errors
    /// [`DataError::Changed`], and those of reading.
    pub(super) fn finish(mut self, file: &SourceFile) -> Result<(), DataError> {
        loop {
            let bytes = self.filled()?;
            let length = bytes.len();
            if length == 0 {
                break;
            }
            self.inner.consume(length);
        }
        match *self.inner.get_ref().hasher.finalize().as_bytes() == file.digest {
            true => Ok(()),
            false => Err(DataError::Changed { path: file.path.clone() }),
        }
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.position += read as u64;
        Ok(read)
    }
}
