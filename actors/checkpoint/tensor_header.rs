//! The header of a safetensors file: made, and read without believing it.
//!
//! Format: eight bytes of header length (little-endian), the header as JSON padded with spaces,
//! then the tensors without gaps. Source: the README of huggingface/safetensors. Whatever it claims
//! is held against the size of the file before anybody takes memory for it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use octet_kernels::dtype::DType;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value, json};

use crate::checkpoint::tensor_file::TensorSpec;
use crate::checkpoint::{CheckpointError, damaged};
use crate::outside::{Disk, DiskReader};

/// Longest header that is read; the safetensors crate has the same limit.
const HEADER_BYTES_MAX: u64 = 100_000_000;

/// The data start at a multiple of this.
const DATA_ALIGNMENT: usize = 64;

/// Key of the free-form part of the header.
const METADATA: &str = "__metadata__";

/// The format's name of a dtype.
pub fn format_name(dtype: DType) -> &'static str {
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

/// A tensor as the header has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderEntry {
    /// Key.
    pub name: String,
    /// The format's name of the type.
    pub type_name: String,
    /// The type, if this program knows it.
    pub dtype: Option<DType>,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Where its bytes lie in the file.
    pub bytes: std::ops::Range<u64>,
}

/// A header that was read, of a file whose data are all there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorFileHeader {
    /// The tensors in the order of their data.
    pub tensors: Vec<HeaderEntry>,
    /// The free-form part.
    pub metadata: BTreeMap<String, String>,
    /// The byte at which the data begin.
    pub data: u64,
}

impl TensorFileHeader {
    /// Reads the header of a file, and compares what it claims with the file's size.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] that says what does not fit, [`CheckpointError::Disk`].
    pub fn read(disk: &dyn Disk, path: &Path) -> Result<Self, CheckpointError> {
        let size = disk.size(path)?;
        let mut file = disk.open(path)?;
        let mut length = [0; 8];
        fill(&mut *file, &mut length, path)?;
        let length = u64::from_le_bytes(length);
        if length > HEADER_BYTES_MAX.min(size) {
            return Err(damaged(path, format!("a header of {length} bytes")));
        }
        let mut text = vec![0; length as usize];
        fill(&mut *file, &mut text, path)?;
        let header = Self::parse(&text, 8 + length).map_err(|what| damaged(path, what))?;
        let end = header.tensors.last().map_or(8 + length, |tensor| tensor.bytes.end);
        match end == size {
            true => Ok(header),
            false => Err(damaged(path, format!("has {size} bytes, and its header says {end}"))),
        }
    }

    /// Reads the JSON of a header whose data begin at byte `start`. The tensors must have neither
    /// gaps nor overlaps, and as many bytes as their types and shapes say.
    pub(super) fn parse(text: &[u8], start: u64) -> Result<Self, String> {
        let Pairs(entries) =
            serde_json::from_slice(text).map_err(|e| format!("the header: {e}"))?;
        let mut metadata = BTreeMap::new();
        let mut tensors = Vec::with_capacity(entries.len());
        for (name, entry) in entries {
            if name == METADATA {
                metadata = serde_json::from_value(entry).map_err(|e| format!("{METADATA}: {e}"))?;
                continue;
            }
            tensors.push(HeaderEntry::parse(name, &entry, start)?);
        }
        tensors.sort_by_key(|tensor| (tensor.bytes.start, tensor.bytes.end));
        let mut end = start;
        for tensor in &tensors {
            if tensor.bytes.start != end {
                let (name, at) = (&tensor.name, tensor.bytes.start - start);
                return Err(format!("tensor {name} starts at {at}, not at {}", end - start));
            }
            end = tensor.bytes.end;
        }
        let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("the header has two tensors named {}", pair[0])),
            None => Ok(Self { tensors, metadata, data: start }),
        }
    }
}

impl HeaderEntry {
    fn parse(name: String, entry: &Value, start: u64) -> Result<Self, String> {
        let odd = || format!("the header's entry of tensor {name}");
        let type_name = entry["dtype"].as_str().ok_or_else(odd)?.to_owned();
        let dtype = dtype_of(&type_name);
        let numbers = |key: &str| -> Option<Vec<u64>> {
            entry[key].as_array()?.iter().map(Value::as_u64).collect()
        };
        let shape: Option<Vec<usize>> = numbers("shape")
            .and_then(|shape| shape.into_iter().map(|n| usize::try_from(n).ok()).collect());
        let shape = shape.ok_or_else(odd)?;
        let offsets = numbers("data_offsets").filter(|o| o.len() == 2).ok_or_else(odd)?;
        let placed = offsets.iter().map(|offset| start.checked_add(*offset));
        let placed: Option<Vec<u64>> = placed.collect();
        let placed = placed.filter(|o| o[0] <= o[1]).ok_or_else(odd)?;
        let elements = shape.iter().try_fold(1u64, |all, n| all.checked_mul(*n as u64));
        let elements = elements.ok_or_else(odd)?;
        if let Some(dtype) = dtype
            && elements.checked_mul(dtype.bytes() as u64) != Some(placed[1] - placed[0])
        {
            let bytes = placed[1] - placed[0];
            return Err(format!("{} has {bytes} bytes for {dtype} {shape:?}", odd()));
        }
        Ok(Self { name, type_name, dtype, shape, bytes: placed[0]..placed[1] })
    }
}

/// Fills the buffer from a file.
pub(super) fn fill(
    file: &mut dyn DiskReader,
    mut buffer: &mut [u8],
    path: &Path,
) -> Result<(), CheckpointError> {
    while !buffer.is_empty() {
        let count = file.read(buffer)?;
        if count == 0 {
            return Err(damaged(path, "is too short"));
        }
        buffer = buffer.split_at_mut(count).1;
    }
    Ok(())
}

/// The entries of a JSON object in order, those of one name too.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tensors by name")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Pairs, M::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}
