//! What a run folder keeps of the folder that it was imported from: `import/`.
//!
//! `import.json` says what the model computes and which tokenizer it reads, so that a recipe with
//! other keys is refused instead of trained; beside it lie the small files that an export gives
//! back unchanged.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use octet_actors::outside::LocalDisk;
use octet_actors::run_folder::read_json;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::Config;
use crate::data::Tokenizer;
use crate::failure::Failure;

/// Its folder in a run.
pub(crate) const FOLDER: &str = "import";
/// Its file in that folder.
pub(super) const RECORD: &str = "import.json";

/// Small files that are given back as they came.
pub(super) const KEPT: [&str; 4] = [
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];

/// Keys of `config.json` that name tokens, and are given back.
pub(super) const TOKENS: [&str; 3] = ["bos_token_id", "eos_token_id", "pad_token_id"];

/// Keys of `[model]` that may be others after an import: they decide how the model is trained, not
/// what it computes.
const FREE: [&str; 9] = [
    "model.dropout",
    "model.embedding_dropout",
    "model.dtype",
    "model.initialisation",
    "model.init_std",
    "model.matmul",
    "model.max_positions",
    "model.recompute",
    "model.recompute_budget",
];

/// `import.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The folder's name.
    pub(super) from: String,
    /// `model_type` of its `config.json`, or the kind of its file.
    pub(super) kind: String,
    /// Keys of `[model]` that decide what is computed.
    pub(super) model: BTreeMap<String, String>,
    /// Digest of the tokenizer, if there was one.
    pub(super) tokenizer: Option<String>,
    /// [`TOKENS`].
    pub(super) tokens: Map<String, Value>,
}

impl Record {
    /// Of a run; `None` if it was not imported.
    ///
    /// # Errors
    /// Bad input: the file is damaged.
    pub(super) fn of(run: &Path) -> Result<Option<Self>, Failure> {
        let path = run.join(FOLDER).join(RECORD);
        match path.exists() {
            true => read_json(&LocalDisk, &path).map(Some).map_err(Failure::user),
            false => Ok(None),
        }
    }
}

/// The keys of `[model]` that decide what a configuration's model computes.
pub(super) fn computed_keys(config: &Config) -> BTreeMap<String, String> {
    let keys = config.identity().into_iter();
    keys.filter(|(key, _)| key.starts_with("model.") && !FREE.contains(&key.as_str())).collect()
}

/// The digest of a tokenizer, in hexadecimal.
pub(super) fn digest(tokenizer: &Tokenizer) -> String {
    blake3::Hash::from(tokenizer.digest()).to_hex().to_string()
}

/// The kept files of a run, by name.
///
/// # Errors
/// A failure of the world: one cannot be read.
pub(super) fn kept(run: &Path) -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
    let there = |name: &&str| run.join(FOLDER).join(name).is_file();
    let read = |name| {
        let path: PathBuf = run.join(FOLDER).join(name);
        let bytes = fs::read(&path)
            .map_err(|error| Failure::world(format!("cannot read {}: {error}", path.display())))?;
        Ok((name, bytes))
    };
    KEPT.into_iter().filter(there).map(read).collect()
}

/// Refuses to train a run that was imported as another model, or with another tokenizer.
///
/// # Errors
/// Bad input: the key that differs.
pub fn check(run: &Path, config: &Config, tokenizer: &Tokenizer) -> Result<(), Failure> {
    let Some(record) = Record::of(run)? else { return Ok(()) };
    let now = computed_keys(config);
    let keys = record.model.keys().chain(now.keys().filter(|key| !record.model.contains_key(*key)));
    for key in keys {
        let [was, now] = [&record.model, &now]
            .map(|keys| keys.get(key).map_or_else(|| "absent".to_owned(), Clone::clone));
        if was != now {
            let from = &record.from;
            return Err(Failure::user(format!(
                "{key}: expected {was}, as in {from} that the run was imported from, got {now}"
            )));
        }
    }
    match record.tokenizer {
        Some(was) if was != digest(tokenizer) => {
            let run = run.display();
            Err(Failure::user(format!(
                "data.tokenizer: expected the one that the model was imported with, {run}/\
                 tokenizer, got {}",
                config.data.tokenizer
            )))
        }
        _ => Ok(()),
    }
}

/// How a model is talked with.
pub struct Chat {
    /// The file that says so.
    pub path: PathBuf,
    /// A Jinja text.
    pub template: String,
    /// The token that begins a text.
    pub begin: Option<String>,
    /// The token that ends one.
    pub end: Option<String>,
}

/// The chat template of a run that was imported with one.
///
/// # Errors
/// A failure of the world: a kept file cannot be read; bad input: it is damaged.
pub fn chat(run: &Path) -> Result<Option<Chat>, Failure> {
    let kept: BTreeMap<&str, Vec<u8>> = kept(run)?.into_iter().collect();
    let path = |name: &str| run.join(FOLDER).join(name);
    let refused = |name: &str, what: &dyn std::fmt::Display| {
        Failure::user(format!("{}: {what}", path(name).display()))
    };
    let (alone, config) = ("chat_template.jinja", "tokenizer_config.json");
    let settings: Value = match kept.get(config) {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|error| refused(config, &error))?,
        None => Value::Null,
    };
    let named = settings["chat_template"].as_array().into_iter().flatten();
    let default = named.clone().find(|one| one["name"] == "default").map(|one| &one["template"]);
    let within = default.unwrap_or(&settings["chat_template"]).as_str();
    let (name, template) = match (kept.get(alone), within) {
        (Some(bytes), _) => {
            let text = String::from_utf8(bytes.clone()).map_err(|error| refused(alone, &error))?;
            (alone, text)
        }
        (None, Some(text)) => (config, text.to_owned()),
        (None, None) => return Ok(None),
    };
    let token = |role: &str| {
        let token = &settings[role];
        token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned)
    };
    let (begin, end) = (token("bos_token"), token("eos_token"));
    Ok(Some(Chat { path: path(name), template, begin, end }))
}
