//! A Hugging Face `tokenizer.json`, read by crate `tokenizers`.
//!
//! Duty: encodes exactly as the crate does, but faster where the file is a byte-level byte
//! pair encoding; decodes to bytes. Dropout in a file is switched off: the same text has the same
//! tokens. Ownership: the file's own bytes, so that saving it changes nothing. Limits: the crate
//! gets pieces of a document, since it takes a hundred bytes for one of text. Prohibition: adds no
//! special tokens, finds none in text.

use std::collections::HashMap;

use tokenizers::models::ModelWrapper;
use tokenizers::{DecoderWrapper, Tokenizer};

use super::bpe::byte_characters;
use super::byte_pairs::{BytePairs, Memory};
use super::{check_ids, end_of_document};
use crate::data::error::DataError;

mod foreign;

/// Most bytes that the crate gets at once.
const PIECE_BYTES: usize = 4 << 20;
/// What it cannot encode is tried in halves, down to so many bytes.
const PIECE_BYTES_MIN: usize = 64 << 10;

pub(super) struct HuggingFace {
    tokenizer: Tokenizer,
    json: Vec<u8>,
    vocabulary: usize,
    end_of_document: Option<(String, u32)>,
    /// Bytes of each id, where the decoder is byte-level.
    token_bytes: Option<Vec<Vec<u8>>>,
    /// The byte that each id stands for, where characters without a token fall back to bytes.
    fallback: HashMap<u32, u8>,
    /// The fast encoder, if it gives the same tokens as the crate.
    fast: Option<BytePairs>,
    dropout: bool,
}

impl HuggingFace {
    /// Reads the file's bytes; `end` names the token behind every document. An error is a
    /// sentence about the file.
    pub(super) fn new(json: Vec<u8>, end: Option<&str>) -> Result<Self, String> {
        let mut tokenizer = foreign::read(&json)?;
        let mut dropout = false;
        if let ModelWrapper::BPE(model) = tokenizer.get_model() {
            dropout = model.dropout.is_some_and(|share| share > 0.0);
            if dropout {
                let mut model = model.clone();
                model.dropout = None;
                tokenizer.with_model(model);
            }
        }
        // Documents must not be able to spell special tokens, nor be cut or padded.
        tokenizer.set_encode_special_tokens(true);
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
        let ids = tokenizer.get_vocab(true);
        let Some(last) = ids.values().max() else { return Err("it has no tokens".to_owned()) };
        check_ids(ids.len(), *last)?;
        let vocabulary = *last as usize + 1;
        let mut specials: Vec<(u32, String)> = (tokenizer.get_added_tokens_decoder().into_iter())
            .filter(|(_, token)| token.special)
            .map(|(id, token)| (id, token.content))
            .collect();
        specials.sort_unstable();
        let end_of_document = end_of_document(end, &specials, &|name| tokenizer.token_to_id(name))?;
        let byte_level = matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let end_id = end_of_document.as_ref().map(|&(_, id)| id);
        let token_bytes = byte_level.then(|| token_bytes(&tokenizer, &ids, vocabulary, end_id));
        let byte = |byte: u8| Some((tokenizer.token_to_id(&format!("<0x{byte:02X}>"))?, byte));
        let fallback = (0..=255).map(byte).collect::<Option<HashMap<u32, u8>>>();
        let fallback = fallback.filter(|_| !byte_level).unwrap_or_default();
        let fast = BytePairs::of_json(&json);
        Ok(Self {
            tokenizer,
            json,
            vocabulary,
            end_of_document,
            token_bytes,
            fallback,
            fast,
            dropout,
        })
    }

    /// Whether the file asks for dropout, which is not done.
    pub(super) fn drops_merges(&self) -> bool {
        self.dropout
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

    /// A token that texts cannot spell, by name.
    pub(super) fn special(&self, name: &str) -> Option<u32> {
        let special = self.tokenizer.get_added_tokens_decoder().into_iter();
        let mut named = special.filter(|(_, token)| token.special && token.content == name);
        named.next().map(|(id, _)| id)
    }

    /// Whether there is a token of this name that is no special one.
    pub(super) fn spells(&self, name: &str) -> bool {
        self.tokenizer.token_to_id(name).is_some() && self.special(name).is_none()
    }

    pub(super) fn is_byte_exact(&self) -> bool {
        self.token_bytes.is_some() && self.tokenizer.get_normalizer().is_none()
    }

    /// The fast encoder, if there is one.
    pub(super) fn fast(&self) -> Option<&BytePairs> {
        self.fast.as_ref()
    }

    pub(super) fn encode(&self, text: &str, tokens: &mut Vec<u32>) -> Result<(), DataError> {
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(piece_end(rest, PIECE_BYTES));
            self.encode_piece(piece, tokens)?;
            rest = after;
        }
        Ok(())
    }

    fn encode_piece(&self, piece: &str, tokens: &mut Vec<u32>) -> Result<(), DataError> {
        match self.tokenizer.encode_fast(piece, false) {
            Ok(encoding) => tokens.extend_from_slice(encoding.get_ids()),
            // Its expressions give up on a run of a million spaces.
            Err(_) if piece.len() > PIECE_BYTES_MIN => {
                let (half, other) = piece.split_at(piece_end(piece, piece.len() / 2));
                self.encode_piece(half, tokens)?;
                self.encode_piece(other, tokens)?;
            }
            Err(error) => return Err(refused(error)),
        }
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
        let byte = |token: &u32| self.fallback.get(token).copied();
        let mut bytes = Vec::new();
        // The crate shows a run of bytes as nothing but replacements until it is whole characters.
        for run in shown.chunk_by(|a, b| byte(a).is_some() == byte(b).is_some()) {
            if byte(&run[0]).is_some() {
                bytes.extend(run.iter().filter_map(byte));
            } else if bytes.is_empty() {
                bytes.extend(self.decode(run));
            } else {
                bytes.extend(self.decode_inside(run));
            }
        }
        bytes
    }

    /// Text of tokens as the decoder spells it at the begin of a text.
    fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        // It fails on no sequence of ids that this file knows.
        self.tokenizer.decode(tokens, false).unwrap_or_default().into_bytes()
    }

    /// Text of tokens as the decoder spells it behind another one.
    fn decode_inside(&self, tokens: &[u32]) -> Vec<u8> {
        let Some(&first) = tokens.first() else { return Vec::new() };
        let before = self.decode(&[first]).len();
        let mut both = self.decode(&[&[first], tokens].concat());
        both.drain(..before.min(both.len()));
        both
    }

    /// Bytes of text that a token stands for behind another one.
    pub(super) fn bytes_inside(&self, token: u32) -> usize {
        let end = self.end_of_document.as_ref().map(|&(_, id)| id);
        match &self.token_bytes {
            Some(table) => table[token as usize].len(),
            None if Some(token) == end => 0,
            None if self.fallback.contains_key(&token) => 1,
            None => self.decode_inside(&[token]).len(),
        }
    }
}

/// Where the piece of at most `most` bytes at the start of a text ends: behind a line, before a
/// space, or anywhere.
fn piece_end(text: &str, most: usize) -> usize {
    if text.len() <= most {
        return text.len();
    }
    let longest = &text[..text.floor_char_boundary(most)];
    let second_half = &longest[longest.floor_char_boundary(most / 2)..];
    let place = second_half.rfind('\n').map(|at| at + 1).or_else(|| second_half.rfind(' '));
    place.map_or(longest.len(), |at| longest.len() - second_half.len() + at)
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

#[cfg(test)]
mod tests;
