//! Tokenizer files of other kinds, as a `tokenizer.json`.
//!
//! Duty: a vocabulary of WordPiece (a token a line) and a SentencePiece `.model` (byte pairs or
//! Unigram) become the file that crate `tokenizers` reads. Sources: google-research/bert
//! `tokenization.py`; google/sentencepiece `src/sentencepiece_model.proto`. Prohibition: what is
//! not understood is refused, not passed over.

use std::collections::{HashMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// The token of an unknown word, which every vocabulary of WordPiece has.
const UNKNOWN_WORD: &str = "[UNK]";

/// The file as a `tokenizer.json`, if it is one of these kinds. An error is a sentence about it.
pub(super) fn to_json(file: &[u8]) -> Option<Result<Vec<u8>, String>> {
    if let Ok(text) = std::str::from_utf8(file)
        && text.lines().any(|line| line == UNKNOWN_WORD)
    {
        return Some(word_piece(text));
    }
    // The first field of a model is a piece: its tag, its length, and the tag of its text.
    let begins = |[tag, _, text, ..]: &[u8; 4]| *tag == 0x0a && *text == 0x0a;
    let first = file.first_chunk().filter(|first| begins(first));
    first.map(|_| sentence_piece(file))
}

fn word_piece(text: &str) -> Result<Vec<u8>, String> {
    let tokens: Vec<&str> = text.lines().map(str::trim_end).collect();
    let is_special =
        |token: &str| token.starts_with('[') && token.ends_with(']') && token.len() > 2;
    let mut vocabulary = Map::new();
    for (id, token) in tokens.iter().enumerate() {
        if vocabulary.insert((*token).to_owned(), id.into()).is_some() {
            return Err(format!("line {}: the token \"{token}\" stands there twice", id + 1));
        }
    }
    let named = ["[PAD]", UNKNOWN_WORD, "[CLS]", "[SEP]", "[MASK]"];
    let added: Vec<Value> = (tokens.iter().enumerate())
        .filter(|(_, token)| named.contains(token))
        .map(|(id, token)| special(id, token))
        .collect();
    // A vocabulary in which lower case would change nothing is of a model that reads no capitals.
    let has_capitals = |token: &str| token.chars().any(|c| c.to_lowercase().ne([c]));
    let lowercase = !tokens.iter().any(|one| !is_special(one) && has_capitals(one));
    let whole = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": lowercase
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" }, "post_processor": null,
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece", "unk_token": UNKNOWN_WORD, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary
        }
    });
    Ok(serde_json::to_vec(&whole).expect("strings and numbers are valid JSON"))
}

fn special(id: usize, content: &str) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true
    })
}

/// What kind of piece a SentencePiece model says one is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// What counts of a SentencePiece model.
struct Model {
    pieces: Vec<(String, f32, Kind)>,
    byte_pairs: bool,
    byte_fallback: bool,
    characters: Vec<u8>,
    dummy_prefix: bool,
    remove_extra_spaces: bool,
}

fn sentence_piece(file: &[u8]) -> Result<Vec<u8>, String> {
    let Model { pieces, byte_pairs, byte_fallback, characters, dummy_prefix, remove_extra_spaces } =
        read(file)?;
    let lowest = pieces.iter().filter(|piece| piece.2 == Kind::Normal).map(|piece| piece.1);
    let lowest = f64::from(lowest.fold(0.0, f32::min));
    let unknown = pieces.iter().position(|(.., kind)| *kind == Kind::Unknown);
    let unknown = unknown.ok_or("it has no piece for what is unknown")?;
    let mut steps = Vec::new();
    if !characters.is_empty() {
        let map = STANDARD.encode(characters);
        steps.push(json!({ "type": "Precompiled", "precompiled_charsmap": map }));
    }
    let replace = |pattern: &str, content: &str| {
        let pattern = json!({ "Regex": pattern });
        json!({ "type": "Replace", "pattern": pattern, "content": content })
    };
    if remove_extra_spaces {
        steps.extend([replace("^ +", ""), replace(" +$", ""), replace(" {2,}", " ")]);
    }
    if dummy_prefix {
        steps.push(json!({ "type": "Prepend", "prepend": "\u{2581}" }));
    }
    steps.push(json!({ "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" }));
    let added: Vec<Value> = (pieces.iter().enumerate())
        .filter(|(_, (.., kind))| matches!(kind, Kind::Unknown | Kind::Control))
        .map(|(id, (piece, ..))| special(id, piece))
        .collect();
    let model = if byte_pairs {
        let vocabulary: Map<String, Value> =
            pieces.iter().enumerate().map(|(id, (piece, ..))| (piece.clone(), id.into())).collect();
        json!({
            "type": "BPE", "dropout": null, "unk_token": pieces[unknown].0, "fuse_unk": true,
            "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "byte_fallback": byte_fallback, "ignore_merges": false, "vocab": vocabulary,
            "merges": merges(&pieces)
        })
    } else {
        // What no text may become is worth less than any way around it.
        let score = |kind, score: f32| match kind {
            Kind::Normal => f64::from(score),
            _ => lowest - 1000.0,
        };
        let vocabulary: Vec<Value> =
            pieces.iter().map(|(piece, one, kind)| json!([piece, score(*kind, *one)])).collect();
        json!({
            "type": "Unigram", "unk_id": unknown, "vocab": vocabulary,
            "byte_fallback": byte_fallback
        })
    };
    let mut decoders = vec![replace("\u{2581}", " ")];
    if byte_fallback {
        decoders.push(json!({ "type": "ByteFallback" }));
    }
    decoders.push(json!({ "type": "Fuse" }));
    if dummy_prefix {
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let whole = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": { "type": "Sequence", "normalizers": steps },
        "pre_tokenizer": null, "post_processor": null,
        "decoder": { "type": "Sequence", "decoders": decoders }, "model": model
    });
    Ok(serde_json::to_vec(&whole).expect("strings and numbers are valid JSON"))
}

/// Every pair of pieces that makes a piece, in the order of the scores of what they make: only
/// ordinary pieces are made.
fn merges(pieces: &[(String, f32, Kind)]) -> Vec<Value> {
    let ids: HashMap<&str, usize> =
        pieces.iter().enumerate().map(|(id, (piece, ..))| (piece.as_str(), id)).collect();
    let mut made: Vec<(usize, usize, usize)> = Vec::new();
    for (id, (piece, _, kind)) in pieces.iter().enumerate() {
        if *kind == Kind::Normal {
            let cuts = piece
                .char_indices()
                .skip(1)
                .filter_map(|(at, _)| Some((id, *ids.get(&piece[..at])?, *ids.get(&piece[at..])?)));
            made.extend(cuts);
        }
    }
    made.sort_by(|one, other| {
        let score = |&(id, ..): &(usize, usize, usize)| pieces[id].1;
        score(other).total_cmp(&score(one)).then(one.cmp(other))
    });
    made.iter().map(|&(_, left, right)| json!([pieces[left].0, pieces[right].0])).collect()
}

fn read(file: &[u8]) -> Result<Model, String> {
    let mut model = Model {
        pieces: Vec::new(),
        byte_pairs: false,
        byte_fallback: false,
        characters: Vec::new(),
        dummy_prefix: true,
        remove_extra_spaces: true,
    };
    let mut kind = 1;
    for field in fields(file)? {
        match field {
            (1, Field::Bytes(piece)) => model.pieces.push(read_piece(piece)?),
            (2, Field::Bytes(trainer)) => {
                for field in fields(trainer)? {
                    match field {
                        (3, Field::Number(found)) => kind = found,
                        (35, Field::Number(found)) => model.byte_fallback = found != 0,
                        (24, Field::Number(1)) => {
                            return Err("it writes spaces behind words".to_owned());
                        }
                        _ => {}
                    }
                }
            }
            (3, Field::Bytes(normalizer)) => {
                for field in fields(normalizer)? {
                    match field {
                        (2, Field::Bytes(map)) => model.characters = map.to_vec(),
                        (3, Field::Number(found)) => model.dummy_prefix = found != 0,
                        (4, Field::Number(found)) => model.remove_extra_spaces = found != 0,
                        (5, Field::Number(0)) => {
                            return Err("it keeps spaces as they are".to_owned());
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    model.byte_pairs = match kind {
        1 => false,
        2 => true,
        other => {
            return Err(format!("expected a model of type 1 (Unigram) or 2 (BPE), got {other}"));
        }
    };
    let mut known = HashSet::new();
    if let Some((piece, ..)) = model.pieces.iter().find(|(piece, ..)| !known.insert(piece.clone()))
    {
        return Err(format!("the piece \"{piece}\" stands there twice"));
    }
    if model.pieces.iter().any(|(.., kind)| *kind == Kind::UserDefined) {
        return Err("it has pieces of its user, which are found before all others".to_owned());
    }
    Ok(model)
}

fn read_piece(piece: &[u8]) -> Result<(String, f32, Kind), String> {
    let (mut text, mut score, mut kind) = (None, 0.0, Kind::Normal);
    for field in fields(piece)? {
        match field {
            (1, Field::Bytes(found)) => text = String::from_utf8(found.to_vec()).ok(),
            (2, Field::Word(found)) => score = f32::from_bits(found),
            (3, Field::Number(found)) => {
                kind = match found {
                    1 => Kind::Normal,
                    2 => Kind::Unknown,
                    3 => Kind::Control,
                    4 => Kind::UserDefined,
                    5 => Kind::Unused,
                    6 => Kind::Byte,
                    other => return Err(format!("it has a piece of type {other}")),
                };
            }
            _ => {}
        }
    }
    match text.filter(|_| score.is_finite()) {
        Some(text) => Ok((text, score, kind)),
        None => Err("it has a piece without text or score".to_owned()),
    }
}

/// The value of a field of a protocol buffer.
enum Field<'a> {
    Number(u64),
    Word(u32),
    Bytes(&'a [u8]),
}

/// The fields of a message by number.
fn fields(message: &[u8]) -> Result<Vec<(u64, Field<'_>)>, String> {
    let cut = || "it is no SentencePiece model, or it is cut off".to_owned();
    let (mut rest, mut found) = (message, Vec::new());
    while !rest.is_empty() {
        let tag = number(&mut rest).ok_or_else(cut)?;
        let value = match tag & 7 {
            0 => number(&mut rest).map(Field::Number),
            1 => take(&mut rest, 8).map(Field::Bytes),
            2 => number(&mut rest).and_then(|length| take(&mut rest, length)).map(Field::Bytes),
            5 => take(&mut rest, 4)
                .and_then(|word| Some(Field::Word(u32::from_le_bytes(*word.first_chunk()?)))),
            _ => None,
        };
        found.push((tag >> 3, value.ok_or_else(cut)?));
    }
    Ok(found)
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    Some(taken)
}

/// A number of up to ten bytes of seven bits each.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
