//! The special tokens of objectives in the files that `transformers` reads: those that the
//! tokenizer has not are added behind its tokens, where the run has them.

use serde_json::{Map, Value, json};

use super::vocabulary::extend;
use crate::config::Config;
use crate::data::Tokenizer;
use crate::failure::Failure;
use crate::objectives::masked::{BEGIN, END, MASK};

/// Fills the rest of a sequence.
const FILLER: &str = "[PAD]";

/// `tokenizer.json` with all special tokens, and one that fills sequences if the embedding has a
/// row for it. Where samples are pairs, it puts them together as training did.
///
/// # Errors
/// Bad input: the tokenizer's file cannot be extended.
pub(super) fn json(config: &Config, tokenizer: &Tokenizer) -> Result<Vec<u8>, Failure> {
    let (mut json, mut added) = (tokenizer.hugging_face_json(), config.added_tokens(tokenizer));
    let rows = config.model.vocabulary.unwrap_or(0);
    let is_there = tokenizer.id_of(FILLER).is_some() || tokenizer.spells(FILLER);
    let has_row = tokenizer.vocabulary() + added.len() < rows;
    if !config.special_tokens().is_empty() && !is_there && has_row {
        added.push(FILLER);
    }
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

/// Special tokens by what `transformers` calls them, of an exported tokenizer. What fills the rest
/// of a sequence is not seen: `[PAD]` if there is one, else what training takes for it.
pub(super) fn roles(config: &Config, json: &[u8]) -> Vec<(&'static str, String)> {
    let names = config.special_tokens();
    let all = [("mask_token", MASK), ("cls_token", BEGIN), ("sep_token", END)];
    let there = all.into_iter().filter(|(_, name)| names.contains(name));
    let mut roles: Vec<_> = there.map(|(role, name)| (role, name.to_owned())).collect();
    let filler = match filler(json) {
        Some(_) => FILLER,
        None if names.contains(&END) => END,
        None => MASK,
    };
    roles.push(("pad_token", filler.to_owned()));
    roles
}

/// The number of `[PAD]` as a key of `config.json`. `transformers` gives no gradient to the row of
/// that number, so it is nobody's where there is no such token; unsaid, it would be 0.
pub(super) fn ids(json: Option<&[u8]>) -> Map<String, Value> {
    [("pad_token_id".to_owned(), json.and_then(filler).into())].into_iter().collect()
}

/// The number of the token that fills sequences, if an exported tokenizer has one.
fn filler(json: &[u8]) -> Option<u64> {
    id(&serde_json::from_slice(json).ok()?, FILLER)
}
