//! The checkpoints of llm.c: a header of 256 integers, then all tensors of a GPT-2, each for all
//! blocks. Source: karpathy/llm.c `train_gpt2.py` (`write_model`) and `train_gpt2.cu`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use octet_kernels::dtype::DType;
use serde_json::Map;

use super::gpt2::{self, GPT2, NANOGPT};
use super::source::Found;
use super::tensors::{Stored, Tensors};
use crate::failure::Failure;
use crate::models::{DenseConfig, FamilyConfig};
use crate::objectives::Ability;

/// The first integer of a file.
const MAGIC: i32 = 20_240_326;
/// Bytes in front of the data.
const HEADER_BYTES: usize = 256 * 4;

/// Largest size of anything that a header may claim.
const SIZE_MAX: i32 = 1 << 28;

/// Looks at a file.
///
/// # Errors
/// Bad input: it is none of llm.c's, or not as long as its header says.
pub(super) fn find(path: &Path) -> Result<Found, Failure> {
    let shown = path.display();
    let refused = |what: String| Failure::user(format!("{shown}: {what}"));
    let mut header = [0; HEADER_BYTES];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    read.map_err(|error| refused(format!("no header of llm.c: {error}")))?;
    let number = |i: usize| {
        let bytes = &header[4 * i..4 * i + 4];
        i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    };
    if number(0) != MAGIC {
        let what = format!("expected a model of llm.c, which begins with {MAGIC}");
        return Err(refused(format!("{what}, got {}", number(0))));
    }
    let dtype = match number(1) {
        3 => DType::F32,
        5 => DType::Bf16,
        other => return Err(refused(format!("expected version 3 (f32) or 5 (bf16), got {other}"))),
    };
    for i in 2..8 {
        if !(1..=SIZE_MAX).contains(&number(i)) {
            return Err(refused(format!("expected a size in its header, got {}", number(i))));
        }
    }
    let size = |i: usize| number(i) as usize;
    let [positions, _tokens, layers, heads, width, vocabulary] = [2, 3, 4, 5, 6, 7].map(size);
    let shape = gpt2::shape(layers, heads, width);
    let model = DenseConfig { max_positions: Some(positions), ..shape };
    let mut tensors = Tensors::default();
    let file = tensors.open(path)?;
    let end = place(&mut tensors, file, dtype, [positions, layers, width, vocabulary]);
    let bytes = path.metadata().map_err(Failure::world)?.len();
    if end? != Some(bytes) {
        return Err(refused(format!("has {bytes} bytes, which is not what its header says")));
    }
    let notes = vec![format!(
        "{shown} has no tokenizer, so the run has none yet: name GPT-2's with data.tokenizer"
    )];
    Ok(Found {
        path: path.to_owned(),
        kind: "llm.c",
        family: &GPT2,
        lines: &NANOGPT,
        model: FamilyConfig::Dense(model),
        ability: Ability::GoesOn,
        vocabulary,
        tensors,
        biases_may_miss: false,
        tokenizer: None,
        tokens: Map::new(),
        kept: Vec::new(),
        notes,
    })
}

/// Adds all tensors in the order of the file; gives where they end, if that is a number at all.
fn place(
    tensors: &mut Tensors,
    file: usize,
    dtype: DType,
    [positions, layers, width, vocabulary]: [usize; 4],
) -> Result<Option<u64>, Failure> {
    let [once, each] = [1, layers];
    let modules = [
        ("transformer.wte.weight", once, vec![vocabulary, width]),
        ("transformer.wpe.weight", once, vec![positions, width]),
        ("ln_1.weight", each, vec![width]),
        ("ln_1.bias", each, vec![width]),
        ("attn.c_attn.weight", each, vec![3 * width, width]),
        ("attn.c_attn.bias", each, vec![3 * width]),
        ("attn.c_proj.weight", each, vec![width, width]),
        ("attn.c_proj.bias", each, vec![width]),
        ("ln_2.weight", each, vec![width]),
        ("ln_2.bias", each, vec![width]),
        ("mlp.c_fc.weight", each, vec![4 * width, width]),
        ("mlp.c_fc.bias", each, vec![4 * width]),
        ("mlp.c_proj.weight", each, vec![width, 4 * width]),
        ("mlp.c_proj.bias", each, vec![width]),
        ("transformer.ln_f.weight", once, vec![width]),
        ("transformer.ln_f.bias", once, vec![width]),
    ];
    let mut at = HEADER_BYTES as u64;
    for (name, count, shape) in modules {
        let bytes =
            shape.iter().try_fold(dtype.bytes() as u64, |all, n| all.checked_mul(*n as u64));
        let total = bytes.and_then(|bytes| bytes.checked_mul(count as u64));
        let Some(((end, bytes), _)) =
            total.and_then(|total| at.checked_add(total)).zip(bytes).zip(Some(()))
        else {
            return Ok(None);
        };
        // What a header claims may be more blocks than there is memory for names.
        if end > i64::MAX as u64 || count > 1 << 16 {
            return Ok(None);
        }
        for block in 0..count {
            let name = match name.starts_with("transformer.") {
                true => name.to_owned(),
                false => format!("transformer.h.{block}.{name}"),
            };
            let stored = Stored {
                type_name: dtype.name().to_owned(),
                dtype: Some(dtype),
                shape: shape.clone(),
                file,
                at: at + block as u64 * bytes,
            };
            tensors.add(name, stored)?;
        }
        at = end;
    }
    Ok(Some(at))
}
