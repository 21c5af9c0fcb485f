//! The tokenizer of a run as the files that `transformers` reads beside a model.

use serde_json::{Map, Value, json};

use crate::data::Tokenizer;

/// A tokenizer's files by name. `longest` is the number of tokens that the model reads.
pub(super) fn files(tokenizer: &Tokenizer, longest: usize) -> Vec<(&'static str, Vec<u8>)> {
    let json = tokenizer.hugging_face_json();
    let end = tokenizer.end_of_document().and_then(|id| name_of(&json, id));
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": longest,
        "clean_up_tokenization_spaces": false,
        // Without it GPT-2 is also given types of tokens, and adds their embeddings to the text's.
        "model_input_names": ["input_ids", "attention_mask"],
    });
    let mut special = Map::new();
    if let Some(end) = end {
        for role in ["bos_token", "eos_token"] {
            config[role] = end.clone().into();
            special.insert(role.into(), end.clone().into());
        }
    }
    vec![
        ("tokenizer.json", json),
        ("tokenizer_config.json", pretty(&config)),
        ("special_tokens_map.json", pretty(&special.into())),
    ]
}

/// The spelling of an added token.
pub(super) fn name_of(json: &[u8], id: u32) -> Option<String> {
    let whole: Value = serde_json::from_slice(json).ok()?;
    let added = whole["added_tokens"].as_array()?.iter();
    let found = added.clone().find(|token| token["id"].as_u64() == Some(id.into()));
    if let Some(token) = found {
        return token["content"].as_str().map(str::to_owned);
    }
    let words = whole["model"]["vocab"].as_object()?.iter();
    let mut found = words.filter(|(_, value)| value.as_u64() == Some(id.into()));
    found.next().map(|(name, _)| name.clone())
}

/// JSON as people read it, with a line end.
pub(super) fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("plain data becomes JSON");
    text.push(b'\n');
    text
}
