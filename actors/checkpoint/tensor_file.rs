//! safetensors files, written and read as streams: no tensor is ever held twice.
//!
//! Format: eight bytes of header length (little-endian), the header as JSON padded with spaces,
//! then the tensors without gaps. Source: the README of huggingface/safetensors. Tensors come in
//! descending size of their dtype, so that all are aligned. Owns one open file; knows no
//! checkpoints, so an export may use it as well.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use octet_kernels::dtype::DType;
use serde_json::{Map, Value, json};

use crate::checkpoint::{CheckpointError, damaged};
use crate::outside::{Disk, DiskError, DiskFile, DiskReader};

/// Small tensors are gathered until this many bytes are there.
const BUFFER_BYTES: usize = 1 << 20;

/// Longest header that is read; the safetensors crate has the same limit.
const HEADER_BYTES_MAX: u64 = 100_000_000;

/// The data start at a multiple of this.
const DATA_ALIGNMENT: usize = 64;

/// Key of the free-form part of the header.
const METADATA: &str = "__metadata__";

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

/// The format's name of a dtype.
fn format_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "F32",
        DType::F64 => "F64",
        DType::Bf16 => "BF16",
        DType::F16 => "F16",
        DType::F8E4M3 => "F8_E4M3",
        DType::F8E5M2 => "F8_E5M2",
        DType::I32 => "I32",
        DType::I64 => "I64",
        DType::U8 => "U8",
    }
}

fn dtype_of(name: &str) -> Option<DType> {
    DType::ALL.into_iter().find(|dtype| format_name(*dtype) == name)
}

/// Length, JSON and padding in front of the data. Panics if two tensors have one name.
pub fn header(tensors: &[TensorSpec], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut entries = Map::new();
    if !metadata.is_empty() {
        entries.insert(METADATA.into(), json!(metadata));
    }
    let mut start = 0;
    for tensor in tensors {
        let end = start + tensor.bytes();
        let entry = json!({
            "dtype": format_name(tensor.dtype),
            "shape": tensor.shape,
            "data_offsets": [start, end],
        });
        let twice = entries.insert(tensor.name.clone(), entry);
        assert!(twice.is_none(), "two tensors named {}", tensor.name);
        start = end;
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    text.resize((8 + text.len()).next_multiple_of(DATA_ALIGNMENT) - 8, b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    bytes
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
        let mut length = [0; 8];
        reader.read(&mut length)?;
        let length = u64::from_le_bytes(length);
        if length > HEADER_BYTES_MAX.min(disk.size(path)?) {
            return Err(damaged(path, format!("a header of {length} bytes")));
        }
        let mut text = vec![0; length as usize];
        reader.read(&mut text)?;
        let parsed = parse_header(&text).map_err(|what| damaged(path, what))?;
        (reader.tensors, reader.metadata) = parsed;
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

type Header = (Vec<TensorSpec>, BTreeMap<String, String>);

/// The tensors in the order of their data, which must have neither gaps nor overlaps.
fn parse_header(text: &[u8]) -> Result<Header, String> {
    let entries: Map<String, Value> =
        serde_json::from_slice(text).map_err(|e| format!("the header: {e}"))?;
    let mut metadata = BTreeMap::new();
    let mut tensors = Vec::new();
    for (name, entry) in entries {
        if name == METADATA {
            metadata = serde_json::from_value(entry).map_err(|e| format!("{METADATA}: {e}"))?;
            continue;
        }
        let odd = || format!("the header's entry of tensor {name}");
        let dtype = entry["dtype"].as_str().and_then(dtype_of).ok_or_else(odd)?;
        let numbers = |key: &str| -> Option<Vec<usize>> {
            let list = entry[key].as_array()?.iter();
            list.map(|n| n.as_u64().and_then(|n| usize::try_from(n).ok())).collect()
        };
        let shape = numbers("shape").ok_or_else(odd)?;
        let offsets = numbers("data_offsets").filter(|o| o.len() == 2).ok_or_else(odd)?;
        let elements = shape.iter().try_fold(1usize, |all, n| all.checked_mul(*n));
        let bytes = elements.and_then(|n| n.checked_mul(dtype.bytes())).ok_or_else(odd)?;
        if offsets[0].checked_add(bytes) != Some(offsets[1]) {
            return Err(odd());
        }
        tensors.push((offsets[0], offsets[1], TensorSpec { name, dtype, shape }));
    }
    tensors.sort_by_key(|(start, end, _)| (*start, *end));
    let mut end = 0;
    for (start, next, tensor) in &tensors {
        if *start != end {
            return Err(format!("tensor {} starts at {start}, not at {end}", tensor.name));
        }
        end = *next;
    }
    Ok((tensors.into_iter().map(|(_, _, tensor)| tensor).collect(), metadata))
}
