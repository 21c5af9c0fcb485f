//! Files as streams of bytes, decompressed where their name ends in `.gz` or `.zst`.
//!
//! Duty: the bytes, and an error that tells a damaged archive from a disk that refuses.
//! Prohibition: looks at no byte.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

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
}

impl Compression {
    /// Its name; `None` for plain bytes.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Zstandard => Some("Zstandard"),
        }
    }

    /// By the name; and the name without its ending.
    pub(super) fn of(path: &Path) -> (Self, PathBuf) {
        let ending = path.extension().map(|end| end.to_ascii_lowercase());
        match ending.as_deref().and_then(|end| end.to_str()) {
            Some("gz") => (Self::Gzip, path.with_extension("")),
            Some("zst" | "zstd") => (Self::Zstandard, path.with_extension("")),
            _ => (Self::None, path.to_owned()),
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
        let buffered = |file| BufReader::with_capacity(BUFFER_BYTES, file);
        let (compression, _) = Compression::of(path);
        let stream: Box<dyn Read + Send> = match compression {
            Compression::None => Box::new(file),
            Compression::Gzip => Box::new(MultiGzDecoder::new(buffered(file))),
            Compression::Zstandard => {
                Box::new(long_windows(buffered(file)).map_err(DataError::io(path, "open"))?)
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
