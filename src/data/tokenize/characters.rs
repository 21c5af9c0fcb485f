//! The `characters` tokenizer: one token per distinct character.
//!
//! Duty: ids in code point order, so that the same text always gives the same ids (nanoGPT's
//! rule: tiny Shakespeare has 65). Prohibition: no token for characters never seen; they are
//! an error, not a replacement.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::bpe::END_OF_DOCUMENT;
use crate::data::error::DataError;

const UNKNOWN: u32 = u32::MAX;

pub(super) struct Characters {
    /// Character of each id, ascending.
    characters: Vec<char>,
    /// Id of each code point up to the largest character, or `UNKNOWN`.
    ids: Vec<u32>,
    end_of_document: bool,
}

impl Characters {
    pub(super) fn new(alphabet: impl IntoIterator<Item = char>, end_of_document: bool) -> Self {
        let characters: Vec<char> =
            alphabet.into_iter().collect::<BTreeSet<char>>().into_iter().collect();
        let mut ids = vec![UNKNOWN; characters.last().map_or(0, |&last| last as usize + 1)];
        for (id, &character) in (0..).zip(&characters) {
            ids[character as usize] = id;
        }
        Self { characters, ids, end_of_document }
    }

    pub(super) fn encode(&self, text: &str, tokens: &mut Vec<u32>) -> Result<(), DataError> {
        for (offset, character) in text.char_indices() {
            match self.ids.get(character as usize) {
                Some(&id) if id != UNKNOWN => tokens.push(id),
                _ => return Err(DataError::UnknownCharacter { character, offset }),
            }
        }
        Ok(())
    }

    pub(super) fn decode(&self, tokens: &[u32]) -> String {
        tokens.iter().filter_map(|&token| self.characters.get(token as usize)).collect()
    }

    pub(super) fn vocabulary(&self) -> usize {
        self.characters.len() + usize::from(self.end_of_document)
    }

    pub(super) fn end_of_document(&self) -> Option<u32> {
        self.end_of_document.then_some(self.characters.len() as u32)
    }

    pub(super) fn alphabet(&self) -> String {
        self.characters.iter().collect()
    }

    /// Byte pair encoding without merges, over characters instead of bytes.
    pub(super) fn hugging_face_json(&self) -> Vec<u8> {
        let vocabulary: Map<String, Value> =
            (0u32..).zip(&self.characters).map(|(id, one)| (one.to_string(), id.into())).collect();
        let added = match self.end_of_document() {
            Some(id) => json!([{
                "id": id, "content": END_OF_DOCUMENT, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true
            }]),
            None => json!([]),
        };
        let whole = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": null, "pre_tokenizer": null, "post_processor": null,
            "decoder": { "type": "Fuse" },
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null,
                "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": []
            }
        });
        serde_json::to_vec_pretty(&whole).expect("strings and numbers are valid JSON")
    }
}
