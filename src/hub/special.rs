//! The special tokens of objectives in the files that `transformers` reads: those that the
//! tokenizer has not are added behind its tokens, where the run has them.

use serde_json::{Map, Value, json};

use super::vocabulary::extend;
use crate::config::Config;
use crate::data::Tokenizer;
use crate::failure::Failure;
use crate::objectives::masked::{BEGIN, END, MASK};

/// `tokenizer.json` with all special tokens. Where samples are pairs, it puts them together as
/// training did.
///
/// # Errors
/// Bad input: the tokenizer's file cannot be extended.
pub(super) fn json(config: &Config, tokenizer: &Tokenizer) -> Result<Vec<u8>, Failure> {
    let (mut json, added) = (tokenizer.hugging_face_json(), config.added_tokens(tokenizer));
    if !added.is_empty() {
        let refused = |what: String| Failure::user(format!("the run's tokenizer: {what}"));
        let added: Vec<String> = added.into_iter().map(str::to_owned).collect();
        json = extend(&json, tokenizer.vocabulary(), &added).map_err(refused)?;
    }
    let mut whole: Value = serde_json::from_slice(&json).map_err(Failure::ours)?;
    if whole["post_processor"].is_null() && config.special_tokens().contains(&BEGIN) {
        whole["post_processor"] = template(&whole);
        json = serde_json::to_vec_pretty(&whole).map_err(Failure::ours)?;
    }
    Ok(json)
}

/// `[CLS] first [SEP] second [SEP]`, the second text of the second type.
fn template(whole: &Value) -> Value {
    let special = |token: &str, kind: u8| json!({"SpecialToken": {"id": token, "type_id": kind}});
    let text = |name: &str, kind: u8| json!({"Sequence": {"id": name, "type_id": kind}});
    let first = [special(BEGIN, 0), text("A", 0), special(END, 0)];
    let second = [text("B", 1), special(END, 1)];
    let known = |token: &str| {
        let known = json!({"id": token, "ids": [id(whole, token)], "tokens": [token]});
        (token.to_owned(), known)
    };
    let tokens: Map<String, Value> = [BEGIN, END].map(known).into_iter().collect();
    let both = [&first[..], &second].concat();
    json!({
        "type": "TemplateProcessing",
        "single": first,
        "pair": both,
        "special_tokens": tokens,
    })
}

/// The number of an added token.
fn id(whole: &Value, token: &str) -> Option<u64> {
    let added = whole["added_tokens"].as_array()?.iter();
    added.filter(|one| one["content"] == token).find_map(|one| one["id"].as_u64())
}

/// Special tokens by what `transformers` calls them. What fills the rest of a sequence is not seen;
/// training takes the end of a pair for it.
pub(super) fn roles(config: &Config) -> Vec<(&'static str, String)> {
    let names = config.special_tokens();
    let all = [("mask_token", MASK), ("cls_token", BEGIN), ("sep_token", END)];
    let there = all.into_iter().filter(|(_, name)| names.contains(name));
    let mut roles: Vec<_> = there.map(|(role, name)| (role, name.to_owned())).collect();
    let filler = if names.contains(&END) { END } else { MASK };
    roles.push(("pad_token", filler.to_owned()));
    roles
}

/// The number of what fills the rest of a sequence, as a key of `config.json`.
pub(super) fn ids(config: &Config, json: &[u8]) -> Map<String, Value> {
    let whole: Value = serde_json::from_slice(json).unwrap_or_default();
    let filler = roles(config).into_iter().find(|(role, _)| *role == "pad_token");
    let id = filler.and_then(|(_, token)| id(&whole, &token));
    id.map(|id| ("pad_token_id".to_owned(), id.into())).into_iter().collect()
}
