//! Files that nobody should have written, and what is not done though a file asks for it.

use serde_json::{Value, json};

use super::{HuggingFace, PIECE_BYTES, piece_end};
use crate::data::tokenize::bpe;

fn trained() -> Value {
    let sample = ["alpha beta alpha beta gamma alphabet".repeat(9)];
    serde_json::from_slice(&bpe::train(300, &sample, "<|end|>", &mut || Ok(())).unwrap()).unwrap()
}

fn read(json: &Value) -> Result<HuggingFace, String> {
    HuggingFace::new(serde_json::to_vec(json).unwrap(), None)
}

/// A copy with one value replaced.
fn with(path: &str, value: Value) -> Value {
    let mut json = trained();
    *json.pointer_mut(path).unwrap() = value;
    json
}

#[test]
fn what_is_no_tokenizer_is_a_sentence_and_no_panic() {
    for text in ["{\"decoder\":x}", "{\"decoder\":3}", "{\"model\":{}", "[]", "{}", "", "\u{1}"] {
        let refused = HuggingFace::new(text.into(), None).err().unwrap();
        assert!(!refused.is_empty() && !refused.contains('\n'), "{text}: {refused}");
    }
    for (path, value) in [
        ("/decoder", json!(3)),
        ("/decoder", json!([])),
        ("/decoder", json!({"type": "Nonsense"})),
        ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "!"})),
        ("/normalizer", json!({"type": 7})),
        ("/normalizer", json!({"type": "Replace", "pattern": {"Regex": "("}, "content": ""})),
        ("/pre_tokenizer", json!({"type": "Split", "pattern": {"Regex": "("}})),
        ("/model", json!({"type": "Unigram", "vocab": [], "unk_id": 9})),
        ("/model", json!({"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]})),
        ("/model/vocab", json!(["a"])),
        ("/model/merges", json!([["x"]])),
        ("/added_tokens", json!("none")),
        ("/added_tokens/0/content", json!(1)),
        ("/version", json!("9")),
    ] {
        let refused = read(&with(path, value.clone())).err();
        assert!(refused.is_some(), "{path} = {value}");
    }
}

#[test]
fn ids_without_tokens_are_refused() {
    for id in [20_000u32, 300_000_000, u32::MAX] {
        let refused = read(&with("/model/vocab/a", json!(id))).err().unwrap();
        assert!(refused.ends_with(&format!("got {id}")), "{refused}");
    }
    // Some unused numbers are usual.
    assert_eq!(read(&with("/model/vocab/a", json!(4000))).unwrap().vocabulary(), 4001);
}

#[test]
fn dropout_is_switched_off_and_said() {
    let (plain, dropping) = (read(&trained()).unwrap(), with("/model/dropout", json!(0.9)));
    let dropping = read(&dropping).unwrap();
    assert!(dropping.drops_merges() && !plain.drops_merges());
    let (mut expected, mut got) = (Vec::new(), Vec::new());
    plain.encode("alpha beta", &mut expected).unwrap();
    for _ in 0..20 {
        got.clear();
        dropping.encode("alpha beta", &mut got).unwrap();
        assert_eq!(got, expected);
    }
    assert!(dropping.fast().is_some());
}

#[test]
fn the_end_of_a_document_is_no_word() {
    let json = serde_json::to_vec(&trained()).unwrap();
    let end = |name| HuggingFace::new(json.clone(), Some(name));
    assert_eq!(end("<|end|>").unwrap().end_of_document(), Some(("<|end|>", 0)));
    let refused = end("\u{120}alpha").err().unwrap();
    assert!(refused.contains("special tokens (it has \"<|end|>\")"), "{refused}");
    assert!(refused.ends_with("is a learned word, which texts hold too"), "{refused}");
    assert!(end("nobody").err().unwrap().ends_with("got \"nobody\""));
}

#[test]
fn a_run_of_white_space_has_no_limit() {
    let tokenizer = read(&trained()).unwrap();
    let text = format!("alpha{}beta", " ".repeat(3_000_000));
    let mut tokens = Vec::new();
    tokenizer.encode(&text, &mut tokens).unwrap();
    assert!(tokenizer.decode_bytes(&tokens) == text.as_bytes());
}

#[test]
fn long_texts_are_cut_at_lines_and_spaces() {
    let half = PIECE_BYTES / 2;
    let piece_end = |text: &str| piece_end(text, PIECE_BYTES);
    assert_eq!(piece_end("short"), 5);
    assert_eq!(piece_end(&("x".repeat(half + 5) + "\n" + &"y ".repeat(half))), half + 6);
    assert_eq!(piece_end(&("x".repeat(half + 5) + " " + &"y".repeat(half))), half + 5);
    assert_eq!(piece_end(&"y".repeat(2 * half + 9)), 2 * half);
}
