//! The front of a GGUF file: keys with values, and where tensors lie. Source: ggml's
//! `docs/gguf.md`, version 3.

use super::blocks::GgmlType;

/// Tensors begin at multiples of this.
pub(super) const ALIGNMENT: usize = 32;

/// The value of a key.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Whole(u32),
    Number(f32),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    Kinds(Vec<i32>),
}

/// A tensor: its name, its shape as we have it, its type.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) kind: GgmlType,
}

impl Placed {
    /// Bytes of its data, without padding.
    pub(super) fn bytes(&self) -> u64 {
        self.kind.bytes(self.shape.iter().product())
    }

    /// Bytes of padding behind its data.
    pub(super) fn padding(&self) -> usize {
        let over = self.bytes() as usize % ALIGNMENT;
        (ALIGNMENT - over) % ALIGNMENT
    }
}

/// Everything in front of the data.
pub(super) fn header(keys: &[(String, Value)], tensors: &[Placed]) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        text(&mut bytes, key);
        write(&mut bytes, value);
    }
    let mut offset = 0;
    for tensor in tensors {
        text(&mut bytes, &tensor.name);
        bytes.extend((tensor.shape.len() as u32).to_le_bytes());
        // The innermost dimension first.
        for dimension in tensor.shape.iter().rev() {
            bytes.extend((*dimension as u64).to_le_bytes());
        }
        bytes.extend(tensor.kind.id().to_le_bytes());
        bytes.extend(u64::to_le_bytes(offset));
        offset += tensor.bytes() + tensor.padding() as u64;
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

const WHOLE: u32 = 4;
const INTEGER: u32 = 5;
const NUMBER: u32 = 6;
const FLAG: u32 = 7;
const TEXT: u32 = 8;
const LIST: u32 = 9;

fn write(bytes: &mut Vec<u8>, value: &Value) {
    let list = |bytes: &mut Vec<u8>, kind: u32, count: usize| {
        bytes.extend(LIST.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend((count as u64).to_le_bytes());
    };
    match value {
        Value::Whole(number) => {
            bytes.extend(WHOLE.to_le_bytes());
            bytes.extend(number.to_le_bytes());
        }
        Value::Number(number) => {
            bytes.extend(NUMBER.to_le_bytes());
            bytes.extend(number.to_le_bytes());
        }
        Value::Flag(flag) => {
            bytes.extend(FLAG.to_le_bytes());
            bytes.push(u8::from(*flag));
        }
        Value::Text(one) => {
            bytes.extend(TEXT.to_le_bytes());
            text(bytes, one);
        }
        Value::Texts(all) => {
            list(bytes, TEXT, all.len());
            all.iter().for_each(|one| text(bytes, one));
        }
        Value::Kinds(all) => {
            list(bytes, INTEGER, all.len());
            bytes.extend(all.iter().flat_map(|kind| kind.to_le_bytes()));
        }
    }
}
