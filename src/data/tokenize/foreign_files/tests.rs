//! WordPiece and SentencePiece files, whole and damaged.

use std::fs;

use super::to_json;
use crate::data::tokenize::{Tokenizer, TokenizerOptions};

/// A field of a protocol buffer that holds bytes.
fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = value.len();
    while length >= 0x80 {
        field.push(length as u8 | 0x80);
        length >>= 7;
    }
    field.push(length as u8);
    field.extend(value);
    field
}

fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
    let score = [vec![2 << 3 | 5], score.to_le_bytes().to_vec()].concat();
    bytes(1, &[bytes(1, text.as_bytes()), score, vec![3 << 3, kind]].concat())
}

/// A model of a few pieces, of this type, with bytes for all else.
fn model(kind: u8) -> Vec<u8> {
    let mut file = [piece("<unk>", 0.0, 2), piece("<s>", 0.0, 3), piece("</s>", 0.0, 3)].concat();
    (0..=255).for_each(|byte| file.extend(piece(&format!("<0x{byte:02X}>"), 0.0, 6)));
    let words = ["\u{2581}a", "ab", "\u{2581}ab", "\u{2581}", "a", "b", "<", "s", ">", "/"];
    for (rank, word) in (1u8..).zip(words) {
        file.extend(piece(word, -f32::from(rank), 1));
    }
    file.extend(bytes(2, &[vec![3 << 3, kind], vec![0x98, 0x02, 1]].concat()));
    file.extend(bytes(3, &[4 << 3, 0]));
    file
}

fn read(file: &[u8], end: Option<&str>) -> Result<Tokenizer, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.model");
    fs::write(&path, file).unwrap();
    let options = TokenizerOptions { end_of_document: end, split: None };
    Tokenizer::from_file(&path, options).map_err(|error| error.to_string())
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut tokens = Vec::new();
    tokenizer.encoder().encode(text, &mut tokens).unwrap();
    tokens
}

#[test]
fn byte_pairs_of_sentencepiece_by_hand() {
    let tokenizer = read(&model(2), None).unwrap();
    assert_eq!((tokenizer.vocabulary(), tokenizer.end_of_document()), (269, Some(2)));
    // "_a" is made first, then "_ab" of it; a byte order as of "_ a b" with a dummy prefix.
    assert_eq!(encode(&tokenizer, "ab a  b"), [261, 259, 262, 262, 264]);
    assert_eq!(encode(&tokenizer, "b\n\u{e9}"), [262, 264, 3 + 10, 3 + 0xc3, 3 + 0xa9]);
    // Text does not become a special token, nor a byte.
    assert_eq!(encode(&tokenizer, "</s>"), [262, 265, 268, 266, 267]);
    let tokens = encode(&tokenizer, "ab \u{e9}a");
    assert_eq!(tokenizer.decode(&tokens), "ab \u{e9}a");
}

#[test]
fn unigram_of_sentencepiece_by_hand() {
    let tokenizer = read(&model(1), None).unwrap();
    // "_ab" costs 3, "_a" and "b" 7, "_" and "ab" 6.
    assert_eq!(encode(&tokenizer, "ab"), [261]);
    assert_eq!(encode(&tokenizer, "\u{e9}"), [262, 3 + 0xc3, 3 + 0xa9]);
    assert!(!encode(&tokenizer, "<s>").contains(&1));
}

#[test]
fn word_piece_by_hand() {
    let vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nplay\n##ing\n##s\ncafe\n!\n";
    let tokenizer = read(vocabulary.as_bytes(), Some("[SEP]")).unwrap();
    assert_eq!((tokenizer.vocabulary(), tokenizer.end_of_document()), (9, Some(3)));
    assert_eq!(encode(&tokenizer, "Playing plays, Caf\u{e9}!"), [4, 5, 4, 6, 1, 7, 8]);
    let cased = vocabulary.replace("cafe", "Cafe");
    assert_eq!(encode(&read(cased.as_bytes(), None).unwrap(), "Cafe cafe"), [7, 1]);
    let twice = read(vocabulary.replace("cafe", "play").as_bytes(), None).err().unwrap();
    assert!(twice.contains("line 8: the token \"play\" stands there twice"), "{twice}");
}

#[test]
fn models_that_are_not_understood_are_refused() {
    for (file, says) in [
        (model(3), "expected a model of type 1 (Unigram) or 2 (BPE), got 3"),
        ([model(2), piece("x", 0.0, 4)].concat(), "pieces of its user"),
        ([model(2), piece("ab", 0.0, 1)].concat(), "\"ab\" stands there twice"),
        ([model(2), piece("x", f32::NAN, 1)].concat(), "without text or score"),
        ([model(2), bytes(3, &[5 << 3, 0])].concat(), "keeps spaces"),
    ] {
        let refused = read(&file, None).err().unwrap();
        assert!(refused.contains(says), "{refused}");
    }
    let whole = model(1);
    for length in 3..whole.len() {
        // A cut between two fields leaves a model that says less, any other none.
        let _no_panic = to_json(&whole[..length]);
    }
    assert!(read(&whole[..100], None).err().unwrap().contains("cut off"));
}
