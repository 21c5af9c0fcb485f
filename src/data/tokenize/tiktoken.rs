//! A file of ranks, as `tiktoken` has them: a base64 token and its rank in each line.
//!
//! Duty: encodes as `tiktoken` does (`encode_ordinary`): a word that is a token is that token,
//! else the neighbours whose joint bytes have the lowest rank are merged, the leftmost first.
//! Pattern and special tokens are not in the file; they follow from a well-known name.
//! Ownership: the file's own bytes. Prohibition: finds no special tokens in text.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::bpe::{END_OF_DOCUMENT, byte_characters};
use super::byte_pairs::{BytePairs, Memory};
use super::merges::Merges;
use super::pattern::Pattern;
use super::split::Splitter;
use super::{check_ids, end_of_document};
use crate::data::error::DataError;

pub(super) struct Tiktoken {
    /// The name of the file, which may say what it is.
    name: String,
    split: Option<String>,
    ranks: Vec<u8>,
    pattern: Pattern,
    pairs: BytePairs,
    /// Bytes of each id; none for the end of a document and for ids that are not used.
    token_bytes: Vec<Vec<u8>>,
    specials: Vec<(String, u32)>,
    end_of_document: Option<(String, u32)>,
}

/// What a file's name says of it: part of the name, pattern, special tokens.
type WellKnown = (&'static str, Pattern, &'static [(&'static str, u32)]);

const WELL_KNOWN: &[WellKnown] = &[
    ("gpt2", Pattern::Gpt2, &[("<|endoftext|>", 50256)]),
    ("r50k", Pattern::Gpt2, &[("<|endoftext|>", 50256)]),
    ("p50k", Pattern::Gpt2, &[("<|endoftext|>", 50256)]),
    (
        "cl100k",
        Pattern::Cl100k,
        &[
            ("<|endoftext|>", 100257),
            ("<|fim_prefix|>", 100258),
            ("<|fim_middle|>", 100259),
            ("<|fim_suffix|>", 100260),
            ("<|endofprompt|>", 100276),
        ],
    ),
    ("o200k", Pattern::O200k, &[("<|endoftext|>", 199999), ("<|endofprompt|>", 200018)]),
    (
        "llama3",
        Pattern::Llama3,
        &[
            ("<|begin_of_text|>", 128000),
            ("<|end_of_text|>", 128001),
            ("<|start_header_id|>", 128006),
            ("<|end_header_id|>", 128007),
            ("<|eot_id|>", 128009),
            // The last of the reserved tokens: the size of the published model.
            ("<|reserved_special_token_250|>", 128255),
        ],
    ),
];

impl Tiktoken {
    /// Whether a file looks like ranks.
    pub(super) fn recognises(file: &[u8]) -> bool {
        let line = file.split(|&byte| byte == b'\n').next().unwrap_or_default();
        std::str::from_utf8(line).is_ok_and(|line| read_line(line).is_some())
    }

    /// Reads a file of ranks called `name`. `split` is `data.split`, `end` is
    /// `data.end_of_document`. An error is a sentence about the file.
    pub(super) fn new(
        name: &str,
        ranks: Vec<u8>,
        split: Option<&str>,
        end: Option<&str>,
    ) -> Result<Self, String> {
        let known = WELL_KNOWN.iter().find(|(known, ..)| name.contains(known));
        let pattern = match (split, known) {
            (Some(split), _) => Pattern::parse(split)?,
            (None, Some((_, pattern, _))) => pattern.clone(),
            (None, None) => {
                return Err("its name does not say how it cuts text; set data.split".to_owned());
            }
        };
        let tokens = read(&ranks)?;
        let last = tokens.iter().map(|&(_, rank)| rank).max().unwrap_or(0);
        // A file of another name is what the pattern's name says if its special tokens follow.
        let follows = |special: u32| (last + 1..=last + 2).contains(&special);
        let by_split = WELL_KNOWN.iter().find(|(known, _, specials)| {
            split == Some(*known) && specials.first().is_some_and(|&(_, id)| follows(id))
        });
        let specials = known.or(by_split).map_or([].as_slice(), |(.., specials)| *specials);
        // Special tokens lie behind the ranks, or in gaps between them.
        let taken = |id: u32| tokens.binary_search_by_key(&id, |&(_, rank)| rank).is_ok();
        let mut specials: Vec<(String, u32)> =
            specials.iter().map(|&(name, id)| (name.to_owned(), id)).collect();
        if specials.is_empty() {
            specials.push((end.unwrap_or(END_OF_DOCUMENT).to_owned(), last + 1));
        } else if let Some((special, id)) = specials.iter().find(|&&(_, id)| taken(id)) {
            return Err(format!("token {id} should be {special}; it is none of its name's files"));
        }
        let by_id: Vec<(u32, String)> =
            specials.iter().map(|(name, id)| (*id, name.clone())).collect();
        let end_of_document = end_of_document(end, &by_id, &|_| None)?;
        let pairs = pairs(&pattern, &tokens)?;
        let size = specials.iter().map(|&(_, id)| id).chain([last]).max().unwrap_or(0) as usize + 1;
        let mut token_bytes = vec![Vec::new(); size];
        for (name, id) in &specials {
            if end_of_document.as_ref().is_none_or(|(_, end)| end != id) {
                token_bytes[*id as usize] = name.as_bytes().to_vec();
            }
        }
        for (bytes, rank) in tokens {
            token_bytes[rank as usize] = bytes;
        }
        Ok(Self {
            name: name.to_owned(),
            split: split.map(str::to_owned),
            ranks,
            pattern,
            pairs,
            token_bytes,
            specials,
            end_of_document,
        })
    }

    /// The file.
    pub(super) fn ranks(&self) -> &[u8] {
        &self.ranks
    }

    /// The splitting pattern, by its regular expression.
    pub(super) fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// The name that it was given, and `data.split`.
    pub(super) fn given(&self) -> (&str, Option<&str>) {
        (&self.name, self.split.as_deref())
    }

    pub(super) fn vocabulary(&self) -> usize {
        self.token_bytes.len()
    }

    pub(super) fn end_of_document(&self) -> Option<(&str, u32)> {
        self.end_of_document.as_ref().map(|(name, id)| (name.as_str(), *id))
    }

    pub(super) fn fast(&self) -> &BytePairs {
        &self.pairs
    }

    pub(super) fn encode(
        &self,
        memory: Option<&mut Memory>,
        text: &str,
        tokens: &mut Vec<u32>,
    ) -> Result<(), DataError> {
        let done = match memory {
            Some(memory) => self.pairs.encode(memory, text, tokens),
            None => self.pairs.encode_once(text, tokens),
        };
        done.map_err(|reason| DataError::Tokenizer { path: "data.split".into(), reason })
    }

    pub(super) fn decode_bytes(&self, tokens: &[u32]) -> Vec<u8> {
        let known = tokens.iter().filter_map(|&token| self.token_bytes.get(token as usize));
        known.flatten().copied().collect()
    }

    /// The same tokenizer for Hugging Face: all pairs that make a token, in the order of the
    /// tokens. Where two pairs of one token overlap, theirs may take another one than ours.
    pub(super) fn hugging_face_json(&self) -> Vec<u8> {
        let table = byte_characters();
        let spelled =
            |bytes: &[u8]| bytes.iter().map(|&byte| table[byte as usize]).collect::<String>();
        let is_special = |id: usize| self.specials.iter().any(|&(_, one)| one as usize == id);
        let words = self.token_bytes.iter().enumerate();
        let words = words.filter(|(id, bytes)| !bytes.is_empty() && !is_special(*id));
        let vocabulary: Map<String, Value> =
            words.clone().map(|(id, bytes)| (spelled(bytes), id.into())).collect();
        let ids: HashMap<&[u8], u32> =
            words.clone().map(|(id, bytes)| (bytes.as_slice(), id as u32)).collect();
        let mut merges = Vec::new();
        for (_, bytes) in words {
            let mut here: Vec<(u32, u32, usize)> = (1..bytes.len())
                .filter_map(|at| Some((*ids.get(&bytes[..at])?, *ids.get(&bytes[at..])?, at)))
                .collect();
            here.sort_unstable();
            merges.extend(
                here.iter().map(|&(.., at)| json!([spelled(&bytes[..at]), spelled(&bytes[at..])])),
            );
        }
        let added: Vec<Value> = self
            .specials
            .iter()
            .map(|(name, id)| {
                json!({
                    "id": id, "content": name, "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": true
                })
            })
            .collect();
        let spell = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": false
        });
        let split = json!({
            "type": "Split", "pattern": { "Regex": self.pattern.regex() },
            "behavior": "Isolated", "invert": false
        });
        let whole = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": null,
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": [split, spell.clone()] },
            "post_processor": null, "decoder": spell,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null,
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                "byte_fallback": false, "ignore_merges": true, "vocab": vocabulary,
                "merges": merges
            }
        });
        serde_json::to_vec(&whole).expect("strings and numbers are valid JSON")
    }
}

/// A line's token and rank.
fn read_line(line: &str) -> Option<(Vec<u8>, u32)> {
    let (token, rank) = line.trim_end().split_once(' ')?;
    let token = STANDARD.decode(token).ok().filter(|token| !token.is_empty())?;
    Some((token, rank.parse().ok()?))
}

/// All tokens by rank.
fn read(file: &[u8]) -> Result<Vec<(Vec<u8>, u32)>, String> {
    let text = std::str::from_utf8(file).map_err(|_| "it is not UTF-8".to_owned())?;
    let mut tokens = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if !line.is_empty() {
            let token = read_line(line);
            tokens.push(
                token.ok_or_else(|| {
                    format!("line {number}: expected a base64 token and its rank")
                })?,
            );
        }
    }
    tokens.sort_by_key(|&(_, rank)| rank);
    match tokens.windows(2).find(|pair| pair[0].1 == pair[1].1) {
        Some(pair) => Err(format!("rank {} stands there twice", pair[0].1)),
        None => {
            let last = tokens.last().map_or(0, |&(_, last)| last);
            check_ids(tokens.len(), last).map(|()| tokens)
        }
    }
}

/// Every pair of tokens that makes a token, with that token as its rank.
fn pairs(pattern: &Pattern, tokens: &[(Vec<u8>, u32)]) -> Result<BytePairs, String> {
    let ids: HashMap<&[u8], u32> =
        tokens.iter().map(|(bytes, rank)| (bytes.as_slice(), *rank)).collect();
    let mut byte_tokens = [0; 256];
    for (token, byte) in byte_tokens.iter_mut().zip(0..=255u8) {
        let found = ids.get([byte].as_slice());
        *token = *found.ok_or_else(|| format!("it has no token for the byte {byte}"))?;
    }
    let pairs = tokens.iter().flat_map(|(bytes, rank)| {
        let ids = &ids;
        (1..bytes.len()).filter_map(move |at| {
            let pair = (*ids.get(&bytes[..at])?, *ids.get(&bytes[at..])?);
            Some((pair, (*rank, *rank)))
        })
    });
    let merges = Merges::new(byte_tokens, pairs);
    let whole = tokens.iter().map(|(bytes, rank)| (bytes.as_slice().into(), *rank)).collect();
    Ok(BytePairs { splitter: Splitter::new(pattern)?, merges, whole })
}

#[cfg(test)]
mod tests;
