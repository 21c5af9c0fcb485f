//! What a state is worth as one hash: equal exactly when parameters, optimizer state and cursor
//! are.
//!
//! The rule (integers are u64, little-endian; a text is its length in bytes and its UTF-8):
//!
//! - A tensor's bytes are cut into chunks of 1 MiB, the last one shorter, and each is hashed.
//! - The hash of a tensor is blake3 of the text `octet tensor 1`, its name as text, its dtype's
//!   name
//!   as text, the number of its dimensions, each dimension, and the chunk hashes in order.
//! - The digest is blake3 of the text `octet state 1`, the number of tensors, their hashes in byte
//!   order of the names, and the cursor as text: JSON without spaces, keys sorted, at every level.
//!
//! Padding, layout, ranks and the slot's header do not enter. Prohibited here: anything that
//! depends on the number of threads.

use std::thread;

use octet_kernels::dtype::DType;
use serde_json::Value;

use crate::snapshot::LogicalTensor;
use crate::snapshot::slot::SlotView;

/// Unit of hashing.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Hashes one tensor, given its chunks in order.
#[derive(Debug, Clone)]
pub struct TensorHasher(blake3::Hasher);

impl TensorHasher {
    /// Before the first chunk.
    pub fn new(name: &str, dtype: DType, shape: &[usize]) -> Self {
        let mut hasher = blake3::Hasher::new();
        text(&mut hasher, "octet tensor 1");
        text(&mut hasher, name);
        text(&mut hasher, dtype.name());
        number(&mut hasher, shape.len());
        for &dimension in shape {
            number(&mut hasher, dimension);
        }
        Self(hasher)
    }

    /// Takes the next chunk: [`CHUNK_BYTES`], fewer only at the tensor's end.
    pub fn chunk(&mut self, bytes: &[u8]) {
        self.chunk_hash(&blake3::hash(bytes));
    }

    /// Takes the hash of the next chunk.
    fn chunk_hash(&mut self, hash: &blake3::Hash) {
        self.0.update(hash.as_bytes());
    }

    /// The hash of the tensor.
    pub fn finish(&self) -> blake3::Hash {
        self.0.finalize()
    }
}

/// The digest of a state from the hashes of its tensors, which come in byte order of their names.
pub fn combine<'a>(
    tensors: impl ExactSizeIterator<Item = &'a blake3::Hash>,
    cursor: &Value,
) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    text(&mut hasher, "octet state 1");
    number(&mut hasher, tensors.len());
    for hash in tensors {
        hasher.update(hash.as_bytes());
    }
    text(&mut hasher, &canonical(cursor));
    hasher.finalize()
}

/// The digest of a slot, as 64 hexadecimal digits. Uses two threads.
pub fn digest(view: &SlotView<'_>) -> String {
    let hashes = tensor_hashes(view, 2);
    combine(hashes.iter(), &view.head().cursor).to_hex().to_string()
}

/// The hash of every tensor of a slot, in the layout's order.
pub fn tensor_hashes(view: &SlotView<'_>, threads: usize) -> Vec<blake3::Hash> {
    let tensors = view.layout().tensors();
    let chunks: Vec<&[u8]> =
        tensors.iter().flat_map(|t| view.bytes(t).chunks(CHUNK_BYTES)).collect();
    let mut hashes = vec![blake3::Hash::from([0; 32]); chunks.len()];
    let share = chunks.len().div_ceil(threads.max(1)).max(1);
    thread::scope(|scope| {
        for (chunks, hashes) in chunks.chunks(share).zip(hashes.chunks_mut(share)) {
            scope.spawn(move || {
                for (chunk, hash) in chunks.iter().zip(hashes) {
                    *hash = blake3::hash(chunk);
                }
            });
        }
    });
    let mut next = hashes.iter();
    let hash_of = |tensor: &LogicalTensor| {
        let mut hasher = TensorHasher::new(&tensor.name, tensor.dtype, &tensor.shape);
        let count = tensor.span.bytes.div_ceil(CHUNK_BYTES);
        next.by_ref().take(count).for_each(|hash| hasher.chunk_hash(hash));
        hasher.finish()
    };
    tensors.iter().map(hash_of).collect()
}

/// JSON without spaces and with sorted keys: the same text for the same value.
pub fn canonical(value: &Value) -> String {
    sorted(value).to_string()
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
            entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        plain => plain.clone(),
    }
}

fn number(hasher: &mut blake3::Hasher, value: usize) {
    hasher.update(&(value as u64).to_le_bytes());
}

fn text(hasher: &mut blake3::Hasher, value: &str) {
    number(hasher, value.len());
    hasher.update(value.as_bytes());
}
