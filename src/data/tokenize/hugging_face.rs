//! A Hugging Face `tokenizer.json`, read by crate `tokenizers`.
//!
//! Duty: encodes exactly as the crate does, but faster where the file is a byte-level byte
//! pair encoding with GPT-2's pattern; decodes to bytes. Ownership: the file's own bytes, so
//! that saving it changes nothing. Prohibition: adds no special tokens, finds none in text.

use std::collections::HashMap;

use tokenizers::tokenizer::Model;
use tokenizers::{DecoderWrapper, ModelWrapper, PreTokenizerWrapper, Tokenizer};

use super::bpe::byte_characters;
use super::merges::{Merges, WORD_BYTES_MAX};
use super::split::{Piece, ascii_words, pieces};
use super::word_cache::{Key, WordCache};
use crate::data::error::DataError;

/// What the end of a document is called, in order of preference.
const END_OF_DOCUMENT: [&str; 4] = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"];

pub(super) struct HuggingFace {
    tokenizer: Tokenizer,
    json: Vec<u8>,
    vocabulary: usize,
    end_of_document: Option<u32>,
    /// Bytes of each id, where the decoder is byte-level.
    token_bytes: Option<Vec<Vec<u8>>>,
    /// The merges, if the fast path is the same as the crate's.
    merges: Option<Merges>,
    byte_characters: [char; 256],
}

/// What one thread keeps while it encodes on the fast path.
pub(super) struct Memory {
    cache: WordCache,
    scratch: Vec<u32>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self { cache: WordCache::new(), scratch: Vec::new() }
    }
}

impl HuggingFace {
    /// Reads the file's bytes; an error is the parser's own words.
    pub(super) fn new(json: Vec<u8>) -> Result<Self, String> {
        let mut tokenizer = Tokenizer::from_bytes(&json).map_err(|error| error.to_string())?;
        // Documents must not be able to spell special tokens, nor be cut or padded.
        tokenizer.set_encode_special_tokens(true);
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
        let ids = tokenizer.get_vocab(true);
        let Some(last) = ids.values().max() else { return Err("it has no tokens".to_owned()) };
        let vocabulary = *last as usize + 1;
        let end_of_document = END_OF_DOCUMENT.iter().find_map(|name| tokenizer.token_to_id(name));
        let byte_level = matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let token_bytes =
            byte_level.then(|| token_bytes(&tokenizer, &ids, vocabulary, end_of_document));
        let plain = byte_level && splits_like_gpt2(&tokenizer);
        let merges = if plain { Merges::parse(&json) } else { None };
        Ok(Self {
            tokenizer,
            json,
            vocabulary,
            end_of_document,
            token_bytes,
            merges,
            byte_characters: byte_characters(),
        })
    }

    pub(super) fn json(&self) -> &[u8] {
        &self.json
    }

    pub(super) fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    pub(super) fn end_of_document(&self) -> Option<u32> {
        self.end_of_document
    }

    pub(super) fn is_byte_exact(&self) -> bool {
        self.token_bytes.is_some() && self.tokenizer.get_normalizer().is_none()
    }

    /// Memory for [`HuggingFace::encode_with`], if that gives the same tokens as
    /// [`HuggingFace::encode`].
    pub(super) fn memory(&self) -> Option<Memory> {
        self.merges.as_ref().map(|_| Memory::new())
    }

    pub(super) fn encode(&self, text: &str, tokens: &mut Vec<u32>) -> Result<(), DataError> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(refused)?;
        tokens.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    /// Splits by hand and asks the merges only for words that are not remembered.
    pub(super) fn encode_with(
        &self,
        memory: &mut Memory,
        text: &str,
        tokens: &mut Vec<u32>,
    ) -> Result<(), DataError> {
        let Memory { cache, scratch } = memory;
        for piece in pieces(text) {
            match piece {
                Piece::Other(text) => {
                    remember(cache, text.as_bytes(), tokens, |tokens| self.encode(text, tokens))?;
                }
                Piece::Ascii(text) => ascii_words(text, |word| {
                    remember(cache, word, tokens, |tokens| self.encode_word(scratch, word, tokens))
                })?,
            }
        }
        Ok(())
    }

    fn encode_word(
        &self,
        scratch: &mut Vec<u32>,
        word: &[u8],
        tokens: &mut Vec<u32>,
    ) -> Result<(), DataError> {
        match &self.merges {
            Some(merges) if word.len() <= WORD_BYTES_MAX => merges.encode(word, scratch, tokens),
            _ => {
                let spelled: String =
                    word.iter().map(|&byte| self.byte_characters[byte as usize]).collect();
                let found = self.tokenizer.get_model().tokenize(&spelled).map_err(refused)?;
                tokens.extend(found.iter().map(|token| token.id));
            }
        }
        Ok(())
    }

    pub(super) fn decode_bytes(&self, tokens: &[u32]) -> Vec<u8> {
        if let Some(table) = &self.token_bytes {
            let known = tokens.iter().filter_map(|&token| table.get(token as usize));
            return known.flatten().copied().collect();
        }
        let shown: Vec<u32> =
            tokens.iter().copied().filter(|&token| Some(token) != self.end_of_document).collect();
        // The decoder fails on no sequence of ids that this file knows.
        self.tokenizer.decode(&shown, false).unwrap_or_default().into_bytes()
    }
}

/// Appends the tokens of `word` from the cache, or from `encode` and into the cache.
fn remember(
    cache: &mut WordCache,
    word: &[u8],
    tokens: &mut Vec<u32>,
    encode: impl FnOnce(&mut Vec<u32>) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let Some(key) = Key::new(word) else { return encode(tokens) };
    if let Some(found) = cache.get(key) {
        tokens.extend_from_slice(found);
        return Ok(());
    }
    let first = tokens.len();
    encode(tokens)?;
    cache.put(key, &tokens[first..]);
    Ok(())
}

fn refused(error: tokenizers::Error) -> DataError {
    DataError::Tokenizer { path: "tokenizer.json".into(), reason: error.to_string() }
}

/// Whether the file is a byte-level byte pair encoding with GPT-2's pattern and nothing else
/// that looks at the text.
fn splits_like_gpt2(tokenizer: &Tokenizer) -> bool {
    let ModelWrapper::BPE(model) = tokenizer.get_model() else { return false };
    let Some(PreTokenizerWrapper::ByteLevel(split)) = tokenizer.get_pre_tokenizer() else {
        return false;
    };
    split.use_regex
        && !split.add_prefix_space
        && model.dropout.is_none()
        && tokenizer.get_normalizer().is_none()
        && tokenizer.get_added_tokens_decoder().values().all(|added| added.special)
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
