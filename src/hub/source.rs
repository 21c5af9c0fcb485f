//! What is to be imported: a folder of Hugging Face's, one of nanoGPT's, or a file of llm.c's.
//!
//! Reads small files and headers, and believes neither: names of files lead nowhere but into the
//! folder, and a size is only a claim. Prohibition: reads no tensors and writes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::export::INDEX;
use super::families::{FAMILIES, Family};
use super::gpt2::{self, GPT2, NANOGPT};
use super::keys::Keys;
use super::llmc;
use super::record::{KEPT, TOKENS};
use super::table::Line;
use super::tensors::Tensors;
use crate::failure::Failure;
use crate::models::FamilyConfig;
use crate::objectives::Ability;

/// Largest `config.json`, index or other small file.
const SMALL_BYTES_MAX: u64 = 64 << 20;
/// Largest `tokenizer.json`.
const TOKENIZER_BYTES_MAX: u64 = 512 << 20;

/// A model that somebody else has stored.
pub(super) struct Found {
    /// What it is called in messages: its folder or file.
    pub(super) path: PathBuf,
    /// `model_type`, or the kind of file.
    pub(super) kind: &'static str,
    /// Whose names its tensors have.
    pub(super) family: &'static Family,
    /// Its table.
    pub(super) lines: &'static [Line],
    /// What it computes.
    pub(super) model: FamilyConfig,
    /// What it is trained for.
    pub(super) ability: Ability,
    /// Rows of its embedding.
    pub(super) vocabulary: usize,
    /// Its tensors, by the names of the table.
    pub(super) tensors: Tensors,
    /// Whether biases that are not there are 0.
    pub(super) biases_may_miss: bool,
    /// Its `tokenizer.json`.
    pub(super) tokenizer: Option<Vec<u8>>,
    /// [`TOKENS`] of its `config.json`.
    pub(super) tokens: Map<String, Value>,
    /// Its other small files, by name.
    pub(super) kept: Vec<(&'static str, Vec<u8>)>,
    /// What a person should know.
    pub(super) notes: Vec<String>,
}

impl Found {
    /// Whether its head is its embedding.
    pub(super) fn is_tied(&self) -> bool {
        match &self.model {
            FamilyConfig::Dense(model) => model.tied,
            FamilyConfig::Encoder(_) => true,
        }
    }
}

/// Looks at a path.
///
/// # Errors
/// Bad input: nothing that can be imported is there.
pub(super) fn find(path: &Path) -> Result<Found, Failure> {
    let shown = path.display();
    if path.is_file() {
        let is_bin = path.extension().is_some_and(|end| end == "bin");
        return match is_bin {
            true => llmc::find(path),
            false => Err(Failure::user(format!(
                "{shown}: expected a folder with a config.json, or a .bin file of llm.c"
            ))),
        };
    }
    let config = path.join("config.json");
    if !config.is_file() {
        return Err(Failure::user(format!("{shown}: expected a folder that holds a config.json")));
    }
    let text = String::from_utf8(small(&config, SMALL_BYTES_MAX)?)
        .map_err(|_| Failure::user(format!("{}: is not UTF-8", config.display())))?;
    let map: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|error| Failure::user(format!("{}: {error}", config.display())))?;
    let keys = Keys::new(&config, &text, &map);
    if keys.get("model_type").is_none() && keys.get("block_size").is_some() {
        return of_nanogpt(path, &keys);
    }
    of_hugging_face(path, &keys)
}

fn of_hugging_face(path: &Path, keys: &Keys<'_>) -> Result<Found, Failure> {
    let kind = keys.word("model_type", None)?;
    let Some(family) = FAMILIES.into_iter().find(|family| family.model_type == kind) else {
        let known: Vec<&str> = FAMILIES.iter().map(|family| family.model_type).collect();
        let what = format!("expected one of {}, got \"{kind}\"", known.join(", "));
        return Err(keys.refuse("model_type", &what));
    };
    if keys.get("quantization_config").is_some() {
        let what = "expected tensors of floats; make them so with transformers (dequantize())";
        return Err(keys.refuse("quantization_config", what));
    }
    let mut notes = Vec::new();
    for key in ["attn_pdrop", "attention_dropout", "attention_probs_dropout_prob"] {
        if keys.number(key, Some(0.0))? != 0.0 {
            notes.push(format!("{key}: Octet drops nothing inside of attention"));
        }
    }
    let model = family.model.read(keys)?;
    let class = family.class_of(keys)?;
    let vocabulary = keys.whole("vocab_size", None)?;
    let mut tensors = of_files(path)?;
    // A folder of a model without its head says nothing of where the rest stands.
    let prefixed = |name: &str| name.starts_with(family.prefix);
    if !tensors.iter().any(|(name, _)| prefixed(name)) {
        let head = format!("{}.", family.head);
        tensors.rename(|name| match name.starts_with(&head) {
            true => Some(name.to_owned()),
            false => Some(format!("{}{name}", family.prefix)),
        });
    }
    // What old folders call the two parameters of a layer norm.
    let end = |name: &str, old: &str, new: &str| {
        Some(format!("{}LayerNorm.{new}", name.strip_suffix(old)?.strip_suffix("LayerNorm.")?))
    };
    tensors.rename(|name| {
        let renamed = end(name, "gamma", "weight").or_else(|| end(name, "beta", "bias"));
        Some(renamed.unwrap_or_else(|| name.to_owned()))
    });
    let (tokenizer, more) = tokenizer(path)?;
    notes.extend(more);
    let tokens =
        TOKENS.into_iter().filter_map(|key| Some((key.to_owned(), keys.raw(key)?.clone())));
    let tokens = tokens.collect();
    let kept = kept(path)?;
    Ok(Found {
        path: path.to_owned(),
        kind: family.model_type,
        family,
        lines: class.lines,
        model,
        ability: class.ability,
        vocabulary,
        tensors,
        biases_may_miss: false,
        tokenizer,
        tokens,
        kept,
        notes,
    })
}

fn of_nanogpt(path: &Path, keys: &Keys<'_>) -> Result<Found, Failure> {
    let model = gpt2::read_nanogpt(keys)?;
    let vocabulary = keys.whole("vocab_size", None)?;
    let mut tensors = of_files(path)?;
    // What torch.compile calls a model that it has wrapped.
    tensors.rename(|name| Some(name.strip_prefix("_orig_mod.").unwrap_or(name).to_owned()));
    let (tokenizer, notes) = tokenizer(path)?;
    Ok(Found {
        path: path.to_owned(),
        kind: "nanogpt",
        family: &GPT2,
        lines: &NANOGPT,
        model: FamilyConfig::Dense(model),
        ability: Ability::GoesOn,
        vocabulary,
        tensors,
        biases_may_miss: !keys.flag("bias", true)?,
        tokenizer,
        tokens: Map::new(),
        kept: Vec::new(),
        notes,
    })
}

/// The bytes of a file that is not large.
pub(super) fn small(path: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    let shown = path.display();
    let refused = |error| Failure::user(format!("{shown}: cannot be read: {error}"));
    let bytes = fs::metadata(path).map_err(refused)?.len();
    if bytes > most {
        return Err(Failure::user(format!("{shown}: expected at most {most} bytes, got {bytes}")));
    }
    fs::read(path).map_err(refused)
}

/// The tensors of a folder.
fn of_files(folder: &Path) -> Result<Tensors, Failure> {
    let mut tensors = Tensors::default();
    let index = folder.join(INDEX);
    let single = folder.join("model.safetensors");
    match (index.is_file(), single.is_file()) {
        (true, true) => {
            return Err(Failure::user(format!(
                "{}: expected model.safetensors or {INDEX}, got both",
                folder.display()
            )));
        }
        (true, false) => add_sharded(folder, &index, &mut tensors)?,
        (false, true) => tensors.add_safetensors(&single)?,
        (false, false) => return Err(no_tensors(folder)),
    }
    Ok(tensors)
}

/// Adds the files of an index, which must say of every tensor what is so, and nothing more.
fn add_sharded(folder: &Path, index: &Path, tensors: &mut Tensors) -> Result<(), Failure> {
    let shown = index.display();
    let whole: Value = serde_json::from_slice(&small(index, SMALL_BYTES_MAX)?)
        .map_err(|error| Failure::user(format!("{shown}: {error}")))?;
    let Some(map) = whole["weight_map"].as_object() else {
        return Err(Failure::user(format!("{shown}: weight_map: expected files by tensor")));
    };
    let mut files: Vec<&str> = Vec::new();
    for (name, file) in map {
        let plain = file.as_str().filter(|file| {
            let path = Path::new(file);
            path.file_name().is_some_and(|name| name == path.as_os_str())
                && file.ends_with(".safetensors")
        });
        let Some(file) = plain else {
            return Err(Failure::user(format!(
                "{shown}: weight_map: expected the name of a .safetensors file in this folder for \
                 {name}, got {file}"
            )));
        };
        files.push(file);
    }
    files.sort_unstable();
    files.dedup();
    for file in files {
        tensors.add_safetensors(&folder.join(file))?;
    }
    for (name, file) in map {
        let there = tensors.get(name).map(|stored| tensors.path(stored));
        let there = there.and_then(|path| path.file_name()).map(|name| name.to_string_lossy());
        if there.as_deref() != file.as_str() {
            return Err(Failure::user(format!("{shown}: {name} is not in {file}")));
        }
    }
    match tensors.iter().find(|(name, _)| !map.contains_key(*name)) {
        Some((name, stored)) => {
            let file = tensors.path(stored).display();
            Err(Failure::user(format!("{shown}: does not name {name}, which is in {file}")))
        }
        None => Ok(()),
    }
}

/// Why a folder has no tensors that can be read.
fn no_tensors(folder: &Path) -> Failure {
    let shown = folder.display();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let pickled = |name: &&String| name.starts_with("pytorch_model") || name.ends_with(".pt");
    if let Some(name) = names.iter().find(pickled) {
        return Failure::user(format!(
            "{shown}: {name} is a Python pickle, which can run any code when it is read; load the \
             folder with transformers and save it again, save_pretrained(FOLDER, \
             safe_serialization=True), then import that"
        ));
    }
    let shards = names.iter().any(|name| name.ends_with(".safetensors"));
    Failure::user(match shards {
        true => format!("{shown}: expected model.safetensors, or {INDEX} beside several files"),
        false => format!("{shown}: expected model.safetensors, got no tensors"),
    })
}

/// The `tokenizer.json` of a folder, or a note that says how to get one.
fn tokenizer(folder: &Path) -> Result<(Option<Vec<u8>>, Vec<String>), Failure> {
    let path = folder.join("tokenizer.json");
    match path.is_file() {
        true => Ok((Some(small(&path, TOKENIZER_BYTES_MAX)?), Vec::new())),
        false => {
            let folder = folder.display();
            let note = format!(
                "{folder} has no tokenizer.json, so the run has no tokenizer yet: name one with \
                 data.tokenizer (transformers' AutoTokenizer saves one)"
            );
            Ok((None, vec![note]))
        }
    }
}

fn kept(folder: &Path) -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
    let there = |name: &&str| folder.join(name).is_file();
    let read = |name| Ok((name, small(&folder.join(name), SMALL_BYTES_MAX)?));
    KEPT.into_iter().filter(there).map(read).collect()
}
