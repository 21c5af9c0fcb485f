//! Folders that are damaged or mean harm: one clear sentence each, and nothing is written.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{
    Tensor, folder_of, golden, import_to, names_in, scratch, tensors_of, tokenizer_json,
    write_folder, write_tensors,
};
use crate::failure::USER;
use octet_kernels::dtype::DType;

/// A folder that may be spoiled.
struct Place {
    own: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let own = scratch();
        folder_of(&golden(), "gpt2", &own.path().join("theirs"));
        Self { own }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.own.path().join("theirs").join(name)
    }

    /// What an import says that is refused and leaves nothing.
    fn refusal(&self) -> String {
        let before = names_in(self.own.path());
        let from = self.own.path().join("theirs");
        let failure = import_to(&from, &self.own.path().join("run")).unwrap_err();
        assert_eq!(failure.code, USER, "{failure}");
        assert_eq!(failure.what.lines().count(), 1, "{failure}");
        assert!(failure.what.len() < 1000, "{failure}");
        assert_eq!(names_in(self.own.path()), before);
        failure.what
    }

    /// Changes keys of `config.json`.
    fn set(&self, keys: &Value) {
        let path = self.file("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for (key, value) in keys.as_object().unwrap() {
            config[key] = value.clone();
        }
        fs::write(path, serde_json::to_vec_pretty(&config).unwrap()).unwrap();
    }

    /// Changes the tensors.
    fn spoil(&self, change: impl FnOnce(&mut Vec<Tensor>)) {
        let golden = golden();
        let mut tensors = tensors_of(&golden, &golden.cases[0]);
        change(&mut tensors);
        write_tensors(&self.file("model.safetensors"), &tensors, DType::F32);
    }

    /// A file of safetensors with this header, and so many bytes of data.
    fn raw(&self, header: &str, bytes: usize) {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.resize(file.len() + bytes, 0);
        fs::write(self.file("model.safetensors"), file).unwrap();
    }
}

fn assert_says(found: &str, wanted: &str) {
    assert!(found.contains(wanted), "{found}\n\ndoes not say\n\n{wanted}");
}

#[test]
fn tensors_that_do_not_fit_are_all_listed() {
    let place = Place::new();
    place.spoil(|tensors| {
        tensors.retain(|(name, ..)| !name.starts_with("transformer.h.1."));
        tensors[0].1 = vec![32, 3];
        tensors[0].2.truncate(96);
        tensors.push(("transformer.extra".into(), vec![1], vec![1.0]));
    });
    let found = place.refusal();
    assert_says(&found, "12 tensors are missing: transformer.h.1.ln_1.weight, ");
    assert_says(&found, " and 4 more; 1 tensor is unknown: transformer.extra; ");
    assert_says(
        &found,
        "1 tensor is of another shape: transformer.h.0.attn.c_attn.bias is [32, 3] instead of [96]",
    );
}

#[test]
fn values_that_are_no_numbers_are_named() {
    for value in [f32::NAN, f32::INFINITY] {
        let place = Place::new();
        place.spoil(|tensors| tensors[3].2[17] = value);
        let wanted = format!("got {value} in transformer.h.0.attn.c_proj.weight, element 17");
        assert_says(&place.refusal(), &wanted);
    }
}

#[test]
fn files_that_are_not_what_they_claim_are_refused() {
    let place = Place::new();
    let path = place.file("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in [0, 7, 8, 500, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        assert_says(&place.refusal(), "model.safetensors: ");
    }
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert_says(&place.refusal(), "bytes, and its header says");
    fs::write(&path, [whole.as_slice(), &[0]].concat()).unwrap();
    assert_says(&place.refusal(), "bytes, and its header says");
    // A header that is longer than the file, and the longest that there can be.
    for length in [whole.len() as u64 + 1, 99_000_000, u64::MAX] {
        let mut file = length.to_le_bytes().to_vec();
        file.extend(b"{}");
        fs::write(&path, file).unwrap();
        assert_says(&place.refusal(), &format!("a header of {length} bytes"));
    }
    // 10 GB in a file of 1 kB.
    let claim = |start: u64, end: u64| {
        format!(r#"{{"dtype":"F32","shape":[2500000000],"data_offsets":[{start},{end}]}}"#)
    };
    place.raw(&format!(r#"{{"a":{}}}"#, claim(0, 10_000_000_000)), 900);
    assert_says(&place.refusal(), "and its header says 10000000");
    place.raw(&format!(r#"{{"a":{}}}"#, claim(0, 900)), 900);
    assert_says(&place.refusal(), "entry of tensor a has 900 bytes for f32 [2500000000]");
    let huge = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#;
    place.raw(huge, 0);
    assert_says(&place.refusal(), "the header's entry of tensor a");
    let twice = r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    let other = r#"{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#;
    place.raw(&format!(r#"{{"a":{twice},"a":{other}}}"#), 8);
    assert_says(&place.refusal(), "the header has two tensors named a");
    place.raw(&"[".repeat(100_000), 0);
    assert_says(&place.refusal(), "model.safetensors: the header: ");
    place.raw("no json", 0);
    assert_says(&place.refusal(), "model.safetensors: the header: ");
}

#[test]
fn an_index_leads_nowhere_else() {
    let place = Place::new();
    let (single, shard) = (place.file("model.safetensors"), place.file("a.safetensors"));
    let index = place.file("model.safetensors.index.json");
    let outside = place.own.path().join("outside.safetensors");
    fs::copy(&single, &outside).unwrap();
    let names: Vec<String> = golden().cases[0].tensors.keys().cloned().collect();
    let write = |file: &Value| {
        let map: serde_json::Map<String, Value> =
            names.iter().map(|name| (name.clone(), file.clone())).collect();
        fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    };
    write(&json!("a.safetensors"));
    assert_says(&place.refusal(), "expected model.safetensors or model.safetensors.index.json");
    fs::rename(&single, &shard).unwrap();
    let absolute = outside.to_str().unwrap().to_owned();
    for file in [
        json!("../outside.safetensors"),
        json!(absolute),
        json!("x/../../outside.safetensors"),
        json!("./a.safetensors"),
        json!(".."),
        json!(""),
        json!("config.json"),
        json!(3),
    ] {
        write(&file);
        let wanted = "weight_map: expected the name of a .safetensors file in this folder";
        assert_says(&place.refusal(), wanted);
    }
    write(&json!("b.safetensors"));
    assert_says(&place.refusal(), "b.safetensors");
    // A tensor that stands in two files.
    fs::copy(&shard, place.file("b.safetensors")).unwrap();
    let map = json!({ "weight_map": {
        "transformer.wte.weight": "a.safetensors", "transformer.wpe.weight": "b.safetensors"
    } });
    fs::write(&index, map.to_string()).unwrap();
    assert_says(&place.refusal(), "tensor transformer.h.0.attn.c_attn.bias is in ");
    fs::remove_file(place.file("b.safetensors")).unwrap();
    let map = json!({ "weight_map": { "transformer.wte.weight": "a.safetensors" } });
    fs::write(&index, map.to_string()).unwrap();
    assert_says(&place.refusal(), "does not name transformer.h.0.attn.c_attn.bias, which is in");
    fs::write(&index, "{}").unwrap();
    assert_says(&place.refusal(), "weight_map: expected files by tensor");
    fs::remove_file(&index).unwrap();
    assert_says(&place.refusal(), "index.json beside several files");
}

#[test]
fn what_cannot_be_read_says_what_to_do() {
    let place = Place::new();
    fs::rename(place.file("model.safetensors"), place.file("pytorch_model.bin")).unwrap();
    let found = place.refusal();
    assert_says(&found, "pytorch_model.bin is a Python pickle");
    assert_says(&found, "save_pretrained(FOLDER, safe_serialization=True)");
    fs::remove_file(place.file("pytorch_model.bin")).unwrap();
    assert_says(&place.refusal(), "expected model.safetensors, got no tensors");
    fs::remove_file(place.file("config.json")).unwrap();
    assert_says(&place.refusal(), "expected a folder that holds a config.json");
    fs::write(place.file("config.json"), "{ \"model_type\": \"gpt2\",").unwrap();
    assert_says(&place.refusal(), "config.json: EOF");
    fs::write(place.file("config.json"), [0xff, 0xfe]).unwrap();
    assert_says(&place.refusal(), "config.json: is not UTF-8");
}

#[test]
fn configurations_that_octet_does_not_compute_are_refused_by_key_and_line() {
    for (case, keys, wanted) in [
        ("gpt2", json!({ "model_type": "mamba" }), "model_type: expected one of gpt2, llama"),
        ("gpt2", json!({ "activation_function": "relu" }), "activation_function: expected \"gelu"),
        ("gpt2", json!({ "scale_attn_by_inverse_layer_idx": true }), "expected false, since"),
        ("gpt2", json!({ "n_embd": "32" }), "n_embd: expected a whole number, got \"32\""),
        ("gpt2", json!({ "n_head": null }), "n_head: expected a whole number, got nothing"),
        ("gpt2", json!({ "n_head": 0 }), "model.heads: expected a whole number from 1"),
        ("gpt2", json!({ "n_layer": u64::MAX }), "model.layers: expected a whole number from 1"),
        ("gpt2", json!({ "vocab_size": 1u64 << 40 }), "model.vocabulary: expected a whole number"),
        ("gpt2", json!({ "quantization_config": {} }), "quantization_config: expected tensors"),
        ("llama", json!({ "attention_bias": true }), "mlp_bias: expected the same"),
        ("llama", json!({ "hidden_act": "gelu" }), "hidden_act: expected \"silu\""),
        ("llama", json!({ "partial_rotary_factor": 0.5 }), "partial_rotary_factor: expected 1"),
        ("llama", json!({ "num_key_value_heads": 3 }), "model.kv_heads: expected a divisor"),
        ("llama", json!({ "rope_scaling": { "rope_type": "longrope" } }), "factor: expected"),
        (
            "llama",
            json!({ "rope_scaling": { "rope_type": "longrope", "factor": 2 } }),
            "rope_type: expected \"linear\"",
        ),
        ("qwen3, tied", json!({ "attention_bias": true }), "attention_bias: expected false"),
        (
            "qwen2, windows",
            json!({ "layer_types": ["full_attention", "sliding_attention", "sliding_attention"] }),
            "layer_types: expected windows in all blocks, or in all but every n-th",
        ),
    ] {
        let place = Place::new();
        folder_of(&golden(), case, &place.own.path().join("theirs"));
        place.set(&keys);
        assert_says(&place.refusal(), wanted);
    }
    let place = Place::new();
    place.set(&json!({ "n_embd": "32" }));
    let text = fs::read_to_string(place.file("config.json")).unwrap();
    let line = 1 + text.lines().position(|line| line.contains("n_embd")).unwrap();
    assert_says(&place.refusal(), &format!("config.json:{line}: n_embd: "));
}

#[test]
fn tokenizers_that_do_not_fit_are_refused() {
    let place = Place::new();
    fs::write(place.file("tokenizer.json"), "{}").unwrap();
    assert_says(&place.refusal(), "tokenizer.json");
    let mut json = tokenizer_json("</s>");
    json["added_tokens"][0]["id"] = 61.into();
    json["model"]["vocab"]
        .as_object_mut()
        .unwrap()
        .extend((26..61).map(|id| (format!("{}", char::from_u32(0x400 + id).unwrap()), json!(id))));
    fs::write(place.file("tokenizer.json"), json.to_string()).unwrap();
    assert_says(&place.refusal(), "has 62 tokens, and the embedding 61 rows");
}

#[test]
fn a_place_that_is_taken_is_left_alone() {
    let place = Place::new();
    let run = place.own.path().join("run");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("mine"), "").unwrap();
    assert_says(&place.refusal(), "run is there already: name a new folder");
    assert_eq!(names_in(&run), ["mine"]);
    fs::remove_file(run.join("mine")).unwrap();
    // An empty folder is as good as none.
    import_to(&place.own.path().join("theirs"), &run).unwrap();
    assert!(run.join("checkpoints/step-00000000/manifest.json").exists());
    write_folder(Path::new(&place.file("inner")), &json!({}), &[]);
}
