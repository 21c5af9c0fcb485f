//! A byte-level tokenizer as the keys of a GGUF file.

use serde_json::Value as Json;

use super::header::Value;
use crate::data::Tokenizer;
use crate::data::tokenize::pattern::Pattern;

/// Kinds of tokens, as llama.cpp numbers them.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// The keys of a tokenizer, for an embedding of so many rows.
///
/// # Errors
/// One sentence: llama.cpp has no tokenizer like it.
pub(super) fn keys(tokenizer: &Tokenizer, rows: usize) -> Result<Vec<(String, Value)>, String> {
    let json: Json = serde_json::from_slice(&tokenizer.hugging_face_json())
        .map_err(|error| error.to_string())?;
    let splitter = splitter(&json).ok_or(
        "expected byte-level byte pairs that cut text as GPT-2, Llama 3, Qwen2 or GPT-4o do",
    )?;
    let mut tokens: Vec<String> = (0..rows).map(|id| format!("[PAD{id}]")).collect();
    let mut kinds = vec![UNUSED; rows];
    let mut set = |id: Option<u64>, name: &str, kind| {
        if let Some(id) = id.map(|id| id as usize).filter(|id| *id < rows) {
            (tokens[id], kinds[id]) = (name.to_owned(), kind);
        }
    };
    for (name, id) in json["model"]["vocab"].as_object().into_iter().flatten() {
        set(id.as_u64(), name, NORMAL);
    }
    for token in json["added_tokens"].as_array().into_iter().flatten() {
        let kind = if token["special"] == true { CONTROL } else { USER_DEFINED };
        set(token["id"].as_u64(), token["content"].as_str().unwrap_or_default(), kind);
    }
    let merges = json["model"]["merges"].as_array().into_iter().flatten();
    let merge = |merge: &Json| match merge {
        Json::String(both) => both.clone(),
        pair => {
            let side = |i: usize| pair[i].as_str().unwrap_or_default();
            format!("{} {}", side(0), side(1))
        }
    };
    let mut keys = vec![
        ("tokenizer.ggml.model".to_owned(), Value::Text("gpt2".to_owned())),
        ("tokenizer.ggml.pre".to_owned(), Value::Text(splitter.to_owned())),
        ("tokenizer.ggml.tokens".to_owned(), Value::Texts(tokens)),
        ("tokenizer.ggml.token_type".to_owned(), Value::Kinds(kinds)),
        ("tokenizer.ggml.merges".to_owned(), Value::Texts(merges.map(merge).collect())),
        ("tokenizer.ggml.add_bos_token".to_owned(), Value::Flag(false)),
    ];
    if let Some(end) = tokenizer.end_of_document() {
        for role in ["bos", "eos"] {
            keys.push((format!("tokenizer.ggml.{role}_token_id"), Value::Whole(end)));
        }
    }
    Ok(keys)
}

/// What llama.cpp calls the way in which text is cut.
fn splitter(json: &Json) -> Option<&'static str> {
    if json["model"]["type"] != "BPE" || json["decoder"]["type"] != "ByteLevel" {
        return None;
    }
    let before = &json["pre_tokenizer"];
    let steps = before["pretokenizers"].as_array();
    let regex = steps.into_iter().flatten().find_map(|step| step["pattern"]["Regex"].as_str());
    match regex {
        None => Some("gpt-2"),
        Some(regex) => {
            let mut named = Pattern::NAMES.into_iter();
            let (name, _) = named.find(|(_, pattern)| pattern.regex() == regex)?;
            [("gpt2", "gpt-2"), ("llama3", "llama-bpe"), ("qwen2", "qwen2"), ("o200k", "gpt-4o")]
                .into_iter()
                .find(|(ours, _)| *ours == name)
                .map(|(_, theirs)| theirs)
        }
    }
}
