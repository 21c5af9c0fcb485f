//! GGUF files, read back as ggml reads them: names, keys, and numbers as near as their types allow.
//! `scripts/gguf_check` holds them against the `gguf` package and llama.cpp itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::f16;
use octet_actors::outside::LocalDisk;
use serde_json::json;

use super::super::table::turned;
use super::{
    Export, Form, export, export_job, import_to, names_in, scratch, tokenizer_json, values,
    write_folder,
};
use crate::hub::GgmlType;

/// A file that was read.
struct File {
    keys: BTreeMap<String, String>,
    /// Shape and values of tensors.
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, bytes: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(bytes);
        self.0 = rest;
        taken.to_vec()
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().unwrap())
    }

    fn text(&mut self) -> String {
        let bytes = self.u64() as usize;
        String::from_utf8(self.take(bytes)).unwrap()
    }

    fn value(&mut self, kind: u32) -> String {
        match kind {
            4 | 5 => self.u32().to_string(),
            6 => f32::from_bits(self.u32()).to_string(),
            7 => self.take(1)[0].to_string(),
            8 => self.text(),
            9 => {
                let (kind, count) = (self.u32(), self.u64());
                let all: Vec<String> = (0..count).map(|_| self.value(kind)).collect();
                all.join("|")
            }
            other => panic!("a value of kind {other}"),
        }
    }
}

fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// As ggml's `dequantize_row_*`.
fn decode(kind: u32, bytes: &[u8], elements: usize) -> Vec<f32> {
    let nibbles = |bytes: &[u8]| -> Vec<f32> {
        let low = bytes.iter().map(|b| f32::from(b & 15));
        low.chain(bytes.iter().map(|b| f32::from(b >> 4))).collect()
    };
    let values: Vec<f32> = match kind {
        0 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
        1 => bytes.chunks_exact(2).map(half).collect(),
        8 => {
            let block = |b: &[u8]| {
                let scale = half(b);
                b[2..].iter().map(move |q| scale * f32::from(*q as i8)).collect::<Vec<f32>>()
            };
            bytes.chunks_exact(34).flat_map(block).collect()
        }
        2 => {
            let block = |b: &[u8]| {
                let scale = half(b);
                nibbles(&b[2..]).into_iter().map(|q| scale * (q - 8.0)).collect::<Vec<f32>>()
            };
            bytes.chunks_exact(18).flat_map(block).collect()
        }
        12 => bytes.chunks_exact(144).flat_map(|b| super_block(b, &nibbles)).collect(),
        other => panic!("tensors of kind {other}"),
    };
    assert_eq!(values.len(), elements);
    values
}

fn super_block(bytes: &[u8], nibbles: &dyn Fn(&[u8]) -> Vec<f32>) -> Vec<f32> {
    let (step, depth, s) = (half(bytes), half(&bytes[2..]), &bytes[4..16]);
    let both = |j: usize| match j < 4 {
        true => (s[j] & 63, s[j + 4] & 63),
        false => ((s[j + 4] & 15) | ((s[j - 4] >> 6) << 4), (s[j + 4] >> 4) | ((s[j] >> 6) << 4)),
    };
    let mut values = Vec::new();
    for (pair, numbers) in bytes[16..].chunks_exact(32).enumerate() {
        for (i, number) in nibbles(numbers).into_iter().enumerate() {
            let (scale, least) = both(2 * pair + i / 32);
            values.push(step * f32::from(scale) * number - depth * f32::from(least));
        }
    }
    values
}

fn read(path: &Path) -> File {
    let bytes = fs::read(path).unwrap();
    let mut reader = Reader(&bytes);
    assert_eq!(reader.take(4), b"GGUF");
    assert_eq!(reader.u32(), 3);
    let (tensors, keys) = (reader.u64(), reader.u64());
    let key = |_| {
        let (name, kind) = (reader.text(), reader.u32());
        (name, reader.value(kind))
    };
    let keys = (0..keys).map(key).collect();
    let mut placed = Vec::new();
    for _ in 0..tensors {
        let name = reader.text();
        let dimensions = reader.u32();
        let mut shape: Vec<usize> = (0..dimensions).map(|_| reader.u64() as usize).collect();
        shape.reverse();
        placed.push((name, shape, reader.u32(), reader.u64() as usize));
    }
    let start = (bytes.len() - reader.0.len()).next_multiple_of(32);
    let tensor = |(name, shape, kind, offset): (String, Vec<usize>, u32, usize)| {
        assert_eq!(offset % 32, 0, "{name}");
        let elements = shape.iter().product::<usize>();
        let (block, size) = match kind {
            0 => (1, 4),
            1 => (1, 2),
            2 => (32, 18),
            8 => (32, 34),
            _ => (256, 144),
        };
        let data = &bytes[start + offset..][..elements / block * size];
        (name, (shape, decode(kind, data, elements)))
    };
    File { keys, tensors: placed.into_iter().map(tensor).collect() }
}

/// A Llama whose rows are whole blocks, and its tensors by their names in `transformers`.
fn llama(place: &Path) -> BTreeMap<String, Vec<f32>> {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 61,
        "hidden_size": 256, "intermediate_size": 288, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 100.0,
        "tie_word_embeddings": false,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32
        }
    });
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![61, 256]),
        ("lm_head.weight".to_owned(), vec![61, 256]),
        ("model.norm.weight".to_owned(), vec![256]),
    ];
    for block in 0..2 {
        for (name, shape) in [
            ("input_layernorm", vec![256]),
            ("post_attention_layernorm", vec![256]),
            ("self_attn.q_proj", vec![64, 256]),
            ("self_attn.k_proj", vec![32, 256]),
            ("self_attn.v_proj", vec![32, 256]),
            ("self_attn.o_proj", vec![256, 64]),
            ("mlp.gate_proj", vec![288, 256]),
            ("mlp.up_proj", vec![288, 256]),
            ("mlp.down_proj", vec![256, 288]),
        ] {
            shapes.push((format!("model.layers.{block}.{name}.weight"), shape));
        }
    }
    let tensors: Vec<super::Tensor> = shapes
        .into_iter()
        .map(|(name, shape)| (name.clone(), shape.clone(), values(&name, &shape, 0.6)))
        .collect();
    write_folder(&place.join("theirs"), &config, &tensors);
    tensors.into_iter().map(|(name, _, values)| (name, values)).collect()
}

/// The name of a tensor in `transformers`.
fn theirs(name: &str) -> String {
    let name = name
        .replace("blk.", "model.layers.")
        .replace("attn_norm", "input_layernorm")
        .replace("ffn_norm", "post_attention_layernorm")
        .replace("attn_output", "self_attn.o_proj");
    let name = ["q", "k", "v"].iter().fold(name, |name, part| {
        name.replace(&format!("attn_{part}."), &format!("self_attn.{part}_proj."))
    });
    let name = ["gate", "up", "down"]
        .iter()
        .fold(name, |name, part| name.replace(&format!("ffn_{part}"), &format!("mlp.{part}_proj")));
    match name.as_str() {
        "token_embd.weight" => "model.embed_tokens.weight".to_owned(),
        "output_norm.weight" => "model.norm.weight".to_owned(),
        "output.weight" => "lm_head.weight".to_owned(),
        _ => name,
    }
}

#[test]
fn files_of_llama_cpp_hold_the_model_as_near_as_their_types() {
    let place = scratch();
    let at = |name: &str| place.path().join(name);
    let expected = llama(place.path());
    fs::write(at("theirs/tokenizer.json"), byte_level().to_string()).unwrap();
    import_to(&at("theirs"), &at("run")).unwrap();
    // The largest error in units of a block's largest value: half a step, and what rounding the
    // scales to f16 (1/2048) and to six bits (1/126 of range and depth) adds.
    for (kind, name, largest) in [
        (GgmlType::F32, "f32", 0.0),
        (GgmlType::F16, "f16", 1.0 / 2048.0),
        (GgmlType::Q8_0, "q8_0", 0.5 / 127.0 + 1.0 / 2048.0),
        (GgmlType::Q4_0, "q4_0", 1.0 / 8.0 + 1.0 / 1024.0),
        (GgmlType::Q4K, "q4_k", 1.0 / 15.0 + 3.0 / 126.0 + 1.0 / 1024.0),
    ] {
        let job = Export { form: Form::Gguf(kind), ..export_job(&at("run"), &at(name)) };
        let exported = export(&LocalDisk, &job, &|| false).unwrap();
        assert_eq!(exported.architecture, "llama");
        assert_eq!(names_in(&at(name)), ["README.md".to_owned(), format!("model-{name}.gguf")]);
        let file = read(&at(name).join(format!("model-{name}.gguf")));
        assert_eq!(file.keys["llama.attention.head_count_kv"], "2");
        assert_eq!(file.keys["llama.rope.freq_base"], "100");
        assert_eq!(file.keys["tokenizer.ggml.pre"], "gpt-2");
        assert!(file.keys["tokenizer.ggml.tokens"].starts_with("a|b|c|"));
        assert!(file.keys["tokenizer.ggml.tokens"].contains("|z|</s>|[PAD27]|"));
        assert!(file.keys["tokenizer.ggml.token_type"].contains("|1|3|5|"));
        assert_eq!(file.keys["tokenizer.ggml.eos_token_id"], "26");
        let factors = &file.tensors["rope_freqs.weight"].1;
        assert_eq!((factors.len(), factors[0], factors[7]), (8, 1.0, 8.0));
        assert_eq!(file.tensors.len(), expected.len() + 1);
        for (name, (shape, found)) in &file.tensors {
            if name == "rope_freqs.weight" {
                continue;
            }
            let wanted = &expected[&theirs(name)];
            // Rows of queries and keys take turns.
            let wanted = match name.contains("attn_q.") || name.contains("attn_k.") {
                true => &turned(wanted, shape[1], 16),
                false => wanted,
            };
            assert_eq!(found.len(), wanted.len(), "{name}");
            let vector = shape.len() == 1;
            for (found, wanted) in found.chunks(32).zip(wanted.chunks(32)) {
                let most = wanted.iter().fold(0.0f32, |most, value| most.max(value.abs()));
                let limit = if vector { 0.0 } else { largest * most.max(0.3) };
                for (found, wanted) in found.iter().zip(wanted) {
                    let error = (found - wanted).abs();
                    assert!(error <= limit, "{kind:?} {name}: {found} for {wanted}, {limit}");
                }
            }
        }
    }
}

/// A tokenizer of a byte-level decoder.
fn byte_level() -> serde_json::Value {
    let mut json = tokenizer_json("</s>");
    json["decoder"] = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false
    });
    json
}

#[test]
fn what_llama_cpp_would_compute_otherwise_is_refused() {
    let place = scratch();
    let at = |name: &str| place.path().join(name);
    let job = |kind| Export { form: Form::Gguf(kind), ..export_job(&at("run"), &at("out")) };
    for (name, tokenizer, complaint) in [
        ("mistral, window 5", byte_level(), "model.window: llama.cpp's models"),
        ("llama, rope yarn", byte_level(), "llama.cpp stretches by YaRN in another way"),
        ("llama", tokenizer_json("</s>"), "the tokenizer: expected byte-level byte pairs"),
    ] {
        super::folder_of(&super::golden(), name, &at("theirs"));
        fs::write(at("theirs/tokenizer.json"), tokenizer.to_string()).unwrap();
        import_to(&at("theirs"), &at("run")).unwrap();
        let refused = export(&LocalDisk, &job(GgmlType::Q8_0), &|| false).unwrap_err();
        assert!(refused.what.contains(complaint), "{refused}");
        assert_eq!(names_in(place.path()), ["run", "theirs"]);
        fs::remove_dir_all(at("run")).unwrap();
    }
}
