//! safetensors files, written and read as streams: no tensor is ever held twice.
//!
//! Tensors come in descending size of their dtype, so that all are aligned. Owns one open file;
//! knows no checkpoints, so an export may use it as well.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use octet_kernels::dtype::DType;

use crate::checkpoint::tensor_header::{HeaderEntry, TensorFileHeader, header};
use crate::checkpoint::{CheckpointError, damaged};
use crate::outside::{Disk, DiskError, DiskFile, DiskReader};

/// Small tensors are gathered until this many bytes are there.
const BUFFER_BYTES: usize = 1 << 20;

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Key.
    pub name: String,
    /// Type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Bytes of its data.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64 * self.dtype.bytes() as u64
    }
}

/// A file on its way to the disk.
pub struct TensorFileWriter {
    file: Box<dyn DiskFile>,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    written: u64,
    expected: u64,
}

/// A file that was written and synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenFile {
    /// Size.
    pub bytes: u64,
    /// Hash of all bytes.
    pub blake3: blake3::Hash,
}

impl TensorFileWriter {
    /// Creates the file and writes the header.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn create(
        disk: &dyn Disk,
        path: &Path,
        tensors: &[TensorSpec],
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self, DiskError> {
        let header = header(tensors, metadata);
        let data: u64 = tensors.iter().map(TensorSpec::bytes).sum();
        let mut writer = Self {
            file: disk.create(path)?,
            hasher: blake3::Hasher::new(),
            buffer: Vec::with_capacity(BUFFER_BYTES),
            written: 0,
            expected: header.len() as u64 + data,
        };
        writer.write(&header)?;
        Ok(writer)
    }

    /// Appends data; all tensors in the order of the header, in pieces of any size.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() >= BUFFER_BYTES {
            return self.file.write_all(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        if !self.buffer.is_empty() {
            self.file.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Writes the rest and syncs. Panics unless exactly the announced tensors were written.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn finish(mut self) -> Result<WrittenFile, DiskError> {
        assert_eq!(self.written, self.expected, "bytes written, bytes announced by the header");
        self.flush()?;
        self.file.sync()?;
        Ok(WrittenFile { bytes: self.written, blake3: self.hasher.finalize() })
    }
}

/// A file on its way from the disk.
pub struct TensorFileReader {
    file: Box<dyn DiskReader>,
    hasher: blake3::Hasher,
    path: PathBuf,
    tensors: Vec<TensorSpec>,
    metadata: BTreeMap<String, String>,
}

impl TensorFileReader {
    /// Opens the file and reads the header.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] if it is none, [`CheckpointError::Disk`].
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, CheckpointError> {
        let mut reader = Self {
            file: disk.open(path)?,
            hasher: blake3::Hasher::new(),
            path: path.to_path_buf(),
            tensors: Vec::new(),
            metadata: BTreeMap::new(),
        };
        let header = TensorFileHeader::read(disk, path)?;
        let spec = |tensor: &HeaderEntry| match tensor.dtype {
            Some(dtype) => {
                Ok(TensorSpec { name: tensor.name.clone(), dtype, shape: tensor.shape.clone() })
            }
            None => {
                let HeaderEntry { name, type_name, .. } = tensor;
                Err(damaged(path, format!("tensor {name} is of type {type_name}")))
            }
        };
        reader.tensors = header.tensors.iter().map(spec).collect::<Result<_, _>>()?;
        // Hashed like all the rest.
        let mut text = vec![0; header.data as usize];
        reader.read(&mut text)?;
        reader.metadata = header.metadata;
        Ok(reader)
    }

    /// The tensors in the order of their data.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// The free-form part of the header.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Fills the buffer with the next bytes of data.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] if the file ends before, [`CheckpointError::Disk`].
    pub fn read(&mut self, mut buffer: &mut [u8]) -> Result<(), CheckpointError> {
        while !buffer.is_empty() {
            let count = self.file.read(buffer)?;
            if count == 0 {
                return Err(damaged(&self.path, "is too short"));
            }
            let (read, rest) = buffer.split_at_mut(count);
            self.hasher.update(read);
            buffer = rest;
        }
        Ok(())
    }

    /// The hash of the whole file, once all tensors were read.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] if there is more, [`CheckpointError::Disk`].
    pub fn finish(mut self) -> Result<blake3::Hash, CheckpointError> {
        match self.file.read(&mut [0])? {
            0 => Ok(self.hasher.finalize()),
            _ => Err(damaged(&self.path, "is too long")),
        }
    }
}
