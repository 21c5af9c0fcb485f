//! Tokenizers of every kind, as the files of an export: the same tokens.
//!
//! With `OCTET_HUB_PARITY=FOLDER` the files and the tokens stay there, for `scripts/hub_parity` to
//! compare with `transformers`.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::super::tokenizer::{ends, files};
use super::scratch;
use crate::data::{Tokenizer, TokenizerOptions};

/// Texts with emoji, CJK, code, white space, and the names of special tokens.
pub(super) const TEXTS: [&str; 8] = [
    "The quick brown fox; 12345 boxes don't fit.",
    "👩‍👩‍👧‍👦 🎉🇯🇵 ünïcödé ﬁ",
    "日本語のテキスト、中文文本和 한국어 텍스트。",
    "fn main() {\n    let x = vec![1, 2];\t// trailing \n}\n",
    "  leading, \r\n\r\n and trailing white space   ",
    "a special <|endoftext|> token in text",
    "I'LL we've ſ 1234567 \u{a0}x",
    "",
];

fn ranks() -> Vec<u8> {
    // All bytes, then pairs and a triple of them.
    let singles = (0..=255u8).map(|byte| vec![byte]);
    let more = ["th", "he", "the", " t", "in", "  ", "日本".get(..3).unwrap()];
    let tokens = singles.chain(more.iter().map(|text| text.as_bytes().to_vec()));
    let line = |(rank, token): (usize, Vec<u8>)| format!("{} {rank}\n", STANDARD.encode(token));
    tokens.enumerate().map(line).collect::<String>().into_bytes()
}

fn word_piece() -> Value {
    let words = [
        "[UNK]", "[CLS]", "[SEP]", "</s>", "the", "qui", "##ck", "fox", "token", "a", "in", "text",
        "main", "fn", "1", "##2", "##3", ".", "(", ")", "日", "本",
    ];
    let vocabulary: Map<String, Value> =
        words.iter().zip(0..).map(|(word, id)| ((*word).to_owned(), json!(id))).collect();
    let special = |id: usize| {
        json!({
            "id": id, "content": words[id], "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true
        })
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0), special(1), special(2), special(3)],
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" }, "post_processor": null,
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary
        }
    })
}

pub(super) fn all() -> Vec<(&'static str, Tokenizer)> {
    let sample: Vec<String> = TEXTS.iter().map(|text| text.repeat(3)).collect();
    let place = scratch();
    let path = place.path().join("own.tiktoken");
    fs::write(&path, ranks()).unwrap();
    let with = |split| TokenizerOptions { split: Some(split), end_of_document: None };
    let word_piece = word_piece().to_string().into_bytes();
    vec![
        ("bytes", Tokenizer::bytes()),
        ("characters", Tokenizer::characters(TEXTS.concat().chars(), true)),
        ("bpe", Tokenizer::train_bpe(300, &sample, None, &mut || Ok(())).unwrap()),
        ("ranks gpt2", Tokenizer::from_file(&path, with("gpt2")).unwrap()),
        ("ranks cl100k", Tokenizer::from_file(&path, with("cl100k")).unwrap()),
        ("ranks qwen2", Tokenizer::from_file(&path, with("qwen2")).unwrap()),
        ("ranks o200k", Tokenizer::from_file(&path, with("o200k")).unwrap()),
        ("word pieces", Tokenizer::from_json(Path::new("wp"), word_piece, None).unwrap()),
    ]
}

#[test]
fn exported_tokenizers_give_the_same_tokens() {
    let kept = std::env::var_os("OCTET_HUB_PARITY");
    for (name, tokenizer) in all() {
        let json = tokenizer.hugging_face_json();
        let roles = ends(&json, &tokenizer);
        let files = files(json, &roles, 64);
        let json = &files.iter().find(|(name, _)| *name == "tokenizer.json").unwrap().1;
        let end = tokenizer.end_of_document().unwrap();
        let read = Tokenizer::from_json(Path::new(name), json.clone(), None).unwrap();
        assert_eq!(read.end_of_document(), Some(end), "{name}");
        assert_eq!(read.vocabulary(), tokenizer.vocabulary(), "{name}");
        let encode = |tokenizer: &Tokenizer, text| {
            let mut tokens = Vec::new();
            tokenizer.encode(text, &mut tokens).unwrap();
            tokens
        };
        for text in TEXTS {
            assert_eq!(encode(&read, text), encode(&tokenizer, text), "{name}: {text:?}");
        }
        let config = &files.iter().find(|(name, _)| *name == "tokenizer_config.json").unwrap().1;
        let config: Value = serde_json::from_slice(config).unwrap();
        assert_eq!(config["model_input_names"], json!(["input_ids", "attention_mask"]));
        let spelled = config["eos_token"].as_str().unwrap();
        let added: Value = serde_json::from_slice(json).unwrap();
        let added = added["added_tokens"].as_array().unwrap().clone();
        let named = added.iter().find(|token| token["content"] == spelled).unwrap();
        assert_eq!(named["id"], end, "{name}");
        if let Some(folder) = &kept {
            let folder = Path::new(folder).join("tokenizers").join(name.replace(' ', "-"));
            fs::create_dir_all(&folder).unwrap();
            for (name, bytes) in &files {
                fs::write(folder.join(name), bytes).unwrap();
            }
            let tokens: Vec<Value> = TEXTS
                .iter()
                .map(|text| json!({ "text": text, "tokens": encode(&tokenizer, text) }))
                .collect();
            fs::write(folder.join("tokens.json"), Value::from(tokens).to_string()).unwrap();
        }
    }
}
