//! A Hugging Face `tokenizer.json`, read by crate `tokenizers`.
//!
//! Duty: encodes exactly as the crate does, but faster where the file is a byte-level byte
//! pair encoding; decodes to bytes. Ownership: the file's own bytes, so that saving it changes
//! nothing. Prohibition: adds no special tokens, finds none in text.

use std::collections::HashMap;

use tokenizers::{DecoderWrapper, Tokenizer};

use super::bpe::byte_characters;
use super::byte_pairs::{BytePairs, Memory};
use super::end_of_document;
use crate::data::error::DataError;

pub(super) struct HuggingFace {
    tokenizer: Tokenizer,
    json: Vec<u8>,
    vocabulary: usize,
    end_of_document: Option<(String, u32)>,
    /// Bytes of each id, where the decoder is byte-level.
    token_bytes: Option<Vec<Vec<u8>>>,
    /// The fast encoder, if it gives the same tokens as the crate.
    fast: Option<BytePairs>,
}

impl HuggingFace {
    /// Reads the file's bytes; `end` names the token behind every document. An error is a
    /// sentence about the file.
    pub(super) fn new(json: Vec<u8>, end: Option<&str>) -> Result<Self, String> {
        let mut tokenizer = Tokenizer::from_bytes(&json).map_err(|error| error.to_string())?;
        // Documents must not be able to spell special tokens, nor be cut or padded.
        tokenizer.set_encode_special_tokens(true);
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
        let ids = tokenizer.get_vocab(true);
        let Some(last) = ids.values().max() else { return Err("it has no tokens".to_owned()) };
        let vocabulary = *last as usize + 1;
        let end_of_document = end_of_document(end, &mut |name| tokenizer.token_to_id(name))?;
        let byte_level = matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let end_id = end_of_document.as_ref().map(|&(_, id)| id);
        let token_bytes = byte_level.then(|| token_bytes(&tokenizer, &ids, vocabulary, end_id));
        let fast = BytePairs::of_json(&json);
        Ok(Self { tokenizer, json, vocabulary, end_of_document, token_bytes, fast })
    }

    pub(super) fn json(&self) -> &[u8] {
        &self.json
    }

    pub(super) fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    pub(super) fn end_of_document(&self) -> Option<(&str, u32)> {
        self.end_of_document.as_ref().map(|(name, id)| (name.as_str(), *id))
    }

    pub(super) fn is_byte_exact(&self) -> bool {
        self.token_bytes.is_some() && self.tokenizer.get_normalizer().is_none()
    }

    /// The fast encoder, if there is one.
    pub(super) fn fast(&self) -> Option<&BytePairs> {
        self.fast.as_ref()
    }

    pub(super) fn encode(&self, text: &str, tokens: &mut Vec<u32>) -> Result<(), DataError> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(refused)?;
        tokens.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    /// As [`Self::encode`], by the fast encoder where there is one.
    pub(super) fn encode_with(
        &self,
        memory: &mut Memory,
        text: &str,
        tokens: &mut Vec<u32>,
    ) -> Result<(), DataError> {
        match &self.fast {
            Some(fast) => fast.encode(memory, text, tokens).map_err(refused),
            None => self.encode(text, tokens),
        }
    }

    pub(super) fn decode_bytes(&self, tokens: &[u32]) -> Vec<u8> {
        if let Some(table) = &self.token_bytes {
            let known = tokens.iter().filter_map(|&token| table.get(token as usize));
            return known.flatten().copied().collect();
        }
        let end = self.end_of_document.as_ref().map(|&(_, id)| id);
        let shown: Vec<u32> = tokens.iter().copied().filter(|&token| Some(token) != end).collect();
        // The decoder fails on no sequence of ids that this file knows.
        self.tokenizer.decode(&shown, false).unwrap_or_default().into_bytes()
    }
}

fn refused(error: impl ToString) -> DataError {
    DataError::Tokenizer { path: "tokenizer.json".into(), reason: error.to_string() }
}

fn token_bytes(
    tokenizer: &Tokenizer,
    ids: &HashMap<String, u32>,
    vocabulary: usize,
    end_of_document: Option<u32>,
) -> Vec<Vec<u8>> {
    let bytes: HashMap<char, u8> = byte_characters().into_iter().zip(0..=255).collect();
    let added = tokenizer.get_added_tokens_decoder();
    let mut table = vec![Vec::new(); vocabulary];
    for (token, &id) in ids {
        // An added token stands for its own spelling, every other one for the bytes it spells.
        let spelled: Option<Vec<u8>> = if added.contains_key(&id) {
            None
        } else {
            token.chars().map(|character| bytes.get(&character).copied()).collect()
        };
        if Some(id) != end_of_document {
            table[id as usize] = spelled.unwrap_or_else(|| token.as_bytes().to_vec());
        }
    }
    table
}
