//! The tokenizer of a run as the files that `transformers` reads beside a model.

use serde_json::{Map, Value, json};

use crate::data::Tokenizer;

/// A tokenizer's files by name, of its `tokenizer.json` and of tokens by role. `longest` is the
/// number of tokens that the model reads.
pub(super) fn files(
    json: Vec<u8>,
    roles: &[(&str, String)],
    longest: usize,
) -> Vec<(&'static str, Vec<u8>)> {
    // Given types of tokens, GPT-2 would add their embeddings to the text's; pairs need them.
    let pairs = roles.iter().any(|(role, _)| *role == "cls_token");
    let types = if pairs { &["token_type_ids"][..] } else { &[] };
    let inputs = [&["input_ids", "attention_mask"], types].concat();
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": longest,
        "clean_up_tokenization_spaces": false,
        "model_input_names": inputs,
    });
    let mut special = Map::new();
    for (role, token) in roles {
        config[*role] = token.clone().into();
        special.insert((*role).into(), token.clone().into());
    }
    vec![
        ("tokenizer.json", json),
        ("tokenizer_config.json", pretty(&config)),
        ("special_tokens_map.json", pretty(&special.into())),
    ]
}

/// The token that ends a document in the roles that it has for who goes on with texts.
pub(super) fn ends(json: &[u8], tokenizer: &Tokenizer) -> Vec<(&'static str, String)> {
    let end = tokenizer.end_of_document().and_then(|end| name_of(json, end));
    let both = |end: String| [("bos_token", end.clone()), ("eos_token", end)];
    end.map(both).into_iter().flatten().collect()
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
