//! Folders of `transformers` in and out, held against what it computed (`tests/golden/hub.json`,
//! made by `scripts/hub_parity`), and what is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use octet_actors::checkpoint::Manifest;
use octet_actors::checkpoint::tensor_file::{TensorFileWriter, TensorSpec};
use octet_actors::outside::LocalDisk;
use octet_kernels::dtype::DType;
use serde::Deserialize;
use serde_json::{Value, json};

use super::tensors::{Tensors, narrow, widen};
use super::{Export, Exported, Form, Import, Imported, export, import};
use crate::config::Config;
use crate::failure::Failure;

mod encoders;
mod exports;
mod ggufs;
mod hostile;
mod imports;
mod parity;
mod published;
mod tokenizers;

/// `tests/golden/hub.json`.
#[derive(Deserialize)]
struct Golden {
    scale: f32,
    vocabulary: usize,
    prompt: Vec<i32>,
    shown: Vec<usize>,
    cases: Vec<Case>,
}

/// A model that `transformers` has computed.
#[derive(Deserialize)]
struct Case {
    name: String,
    config: Value,
    tensors: BTreeMap<String, Vec<usize>>,
    logits: Vec<Vec<f64>>,
    greedy: Vec<i32>,
}

fn golden() -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hub.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A folder of its own: in memory where there is some, since a run syncs every file that it writes.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

/// FNV-1a (Fowler, Noll, Vo).
fn seed(text: &str) -> u32 {
    let step = |value: u32, byte| (value ^ u32::from(byte)).wrapping_mul(16_777_619);
    text.bytes().fold(2_166_136_261, step)
}

/// The tensors that `scripts/hub_reference.py` computes.
fn values(name: &str, shape: &[usize], scale: f32) -> Vec<f32> {
    let center = if shape.len() == 1 && name.ends_with("weight") { 1.0 } else { 0.0 };
    let value = |i: usize| {
        let mut x = seed(name).wrapping_add((i as u32).wrapping_mul(0x9E37_79B9));
        x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
        x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
        x ^= x >> 16;
        ((x >> 8) as f32 / (1 << 24) as f32 - 0.5) * scale + center
    };
    (0..shape.iter().product()).map(value).collect()
}

type Tensor = (String, Vec<usize>, Vec<f32>);

/// The tensors of a case, in the order of names.
fn tensors_of(golden: &Golden, case: &Case) -> Vec<Tensor> {
    let tensor = |(name, shape): (&String, &Vec<usize>)| {
        (name.clone(), shape.clone(), values(name, shape, golden.scale))
    };
    case.tensors.iter().map(tensor).collect()
}

/// Writes a file of safetensors.
fn write_tensors(path: &Path, tensors: &[Tensor], dtype: DType) {
    let spec =
        |(name, shape, _): &Tensor| TensorSpec { name: name.clone(), dtype, shape: shape.clone() };
    let specs: Vec<TensorSpec> = tensors.iter().map(spec).collect();
    let mut file = TensorFileWriter::create(&LocalDisk, path, &specs, &BTreeMap::new()).unwrap();
    for (_, _, values) in tensors {
        let mut bytes = Vec::new();
        narrow(dtype, values, &mut bytes);
        file.write(&bytes).unwrap();
    }
    file.finish().unwrap();
}

/// A folder as `transformers` saves it.
fn write_folder(folder: &Path, config: &Value, tensors: &[Tensor]) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), serde_json::to_vec_pretty(config).unwrap()).unwrap();
    write_tensors(&folder.join("model.safetensors"), tensors, DType::F32);
}

/// The folder of the first case whose name is this.
fn folder_of(golden: &Golden, name: &str, folder: &Path) {
    let case = golden.cases.iter().find(|case| case.name == name).unwrap();
    write_folder(folder, &case.config, &tensors_of(golden, case));
}

fn import_to(from: &Path, run: &Path) -> Result<Imported, Failure> {
    let job = Import { from: from.to_owned(), run: run.to_owned(), ..Import::default() };
    import(&job, &|| false)
}

fn export_job(path: &Path, folder: &Path) -> Export {
    Export {
        path: path.to_owned(),
        folder: folder.to_owned(),
        form: Form::Transformers(None),
        step: None,
        shard_bytes: 5_000_000_000,
        command: "octet export".to_owned(),
    }
}

fn export_to(path: &Path, folder: &Path) -> Result<Exported, Failure> {
    export(&LocalDisk, &export_job(path, folder), &|| false)
}

/// The parameters of a run's checkpoint of step 0, and its configuration.
fn parameters_of(run: &Path) -> (Config, BTreeMap<String, Vec<f32>>) {
    let config = Config::load(&run.join("config.toml"), &[]).unwrap();
    let folder = run.join("checkpoints/step-00000000");
    let manifest = Manifest::read(&LocalDisk, &folder).unwrap();
    let tensors = Tensors::of_checkpoint(&folder, &manifest).unwrap();
    (config, read_all(&tensors))
}

fn read_all(tensors: &Tensors) -> BTreeMap<String, Vec<f32>> {
    let read = |(name, stored): (&str, &super::tensors::Stored)| {
        let dtype = stored.dtype.unwrap();
        let mut bytes = vec![0; stored.elements() * dtype.bytes()];
        tensors.read_bytes(stored, dtype, 0, &mut bytes).unwrap();
        let mut values = vec![0.0; stored.elements()];
        widen(dtype, &bytes, &mut values);
        (name.to_owned(), values)
    };
    tensors.iter().map(read).collect()
}

/// The tensors of a file.
fn tensors_in(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let mut tensors = Tensors::default();
    tensors.add_safetensors(path).unwrap();
    read_all(&tensors)
}

/// The files of a folder by name, but for the card, which tells of the run.
fn files_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let files = entries.map(|path| (name(&path), fs::read(&path).unwrap()));
    files.filter(|(name, _)| name != "README.md").collect()
}

/// Names in a folder, hidden ones too.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<String> =
        entries.map(|entry| name(entry).to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// A tokenizer of bytes and a few pairs, as `transformers` saves one.
fn tokenizer_json(end: &str) -> Value {
    let vocabulary: serde_json::Map<String, Value> =
        ('a'..='z').zip(0..).map(|(c, id)| (c.to_string(), json!(id))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{
            "id": 26, "content": end, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        }],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": { "type": "Fuse" },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": vocabulary, "merges": []
        }
    })
}
