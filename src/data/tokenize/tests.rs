//! Tests of the tokenizers: ids, round trips, saving, and exactness of the fast path.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::{prop_assert_eq, proptest};

use super::{Tokenizer, TokenizerOptions};
use crate::data::DataError;

const TEXT: &str = "First Citizen:\nBefore we proceed, hear me.\n\nAll: it's caf\u{e9} 😀!\n";

fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut tokens = Vec::new();
    tokenizer.encode(text, &mut tokens).unwrap();
    let mut fast = Vec::new();
    tokenizer.encoder().encode(text, &mut fast).unwrap();
    assert_eq!(tokens, fast);
    tokens
}

fn train(size: usize, sample: &[String]) -> Tokenizer {
    Tokenizer::train_bpe(size, sample, None, &mut || Ok(())).unwrap()
}

fn file(path: &Path) -> Tokenizer {
    Tokenizer::from_file(path, TokenizerOptions::default()).unwrap()
}

/// The `tokenizer.json` of a folder, as others read it.
fn theirs(folder: &Path) -> Tokenizer {
    file(&folder.join("tokenizer.json"))
}

fn bpe() -> Tokenizer {
    train(400, &[TEXT.repeat(20)])
}

fn every_kind() -> Vec<Tokenizer> {
    vec![
        Tokenizer::bytes(),
        Tokenizer::characters(TEXT.chars(), false),
        Tokenizer::characters(TEXT.chars(), true),
        bpe(),
    ]
}

/// A file of the development data, or None with a printed reason.
pub(in crate::data) fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new("../shared/data").join(name);
    if path.is_file() {
        return Some(path);
    }
    writeln!(std::io::stderr(), "skipped: {} is not there", path.display()).unwrap();
    None
}

#[test]
fn bytes_are_their_own_tokens() {
    let tokenizer = Tokenizer::bytes();
    assert_eq!(encode(&tokenizer, "A\u{e9}"), [65, 0xc3, 0xa9]);
    assert_eq!((tokenizer.vocabulary(), tokenizer.end_of_document()), (257, Some(256)));
    assert_eq!(tokenizer.decode(&[65, 256, 0xc3]), "A\u{fffd}");
    assert_eq!(tokenizer.decode_bytes(&[65, 256, 0xc3, 9999]), [65, 0xc3]);
}

#[test]
fn characters_are_numbered_in_order() {
    let tokenizer = Tokenizer::characters("banana \u{e9}".chars(), true);
    assert_eq!(encode(&tokenizer, "ban\u{e9}"), [2, 1, 3, 4]);
    assert_eq!((tokenizer.vocabulary(), tokenizer.end_of_document()), (6, Some(5)));
    let error = tokenizer.encode("bat", &mut Vec::new()).unwrap_err();
    assert!(matches!(error, DataError::UnknownCharacter { character: 't', offset: 2 }), "{error}");
}

#[test]
fn shakespeare_has_65_characters() {
    let Some(path) = shared("text/tinyshakespeare.txt") else { return };
    let text = fs::read_to_string(path).unwrap();
    let tokenizer = Tokenizer::characters(text.chars(), false);
    assert_eq!(tokenizer.vocabulary(), 65);
    // The first tokens of nanoGPT's data/shakespeare_char/train.bin.
    let expected = [18, 47, 56, 57, 58, 1, 15, 47, 58, 47, 64, 43, 52, 10, 0];
    assert_eq!(encode(&tokenizer, &text[..15]), expected);
}

#[test]
fn every_kind_gives_its_text_back() {
    for tokenizer in every_kind() {
        let tokens = encode(&tokenizer, TEXT);
        assert_eq!(tokenizer.decode(&tokens), TEXT);
        assert!(tokens.iter().all(|&token| (token as usize) < tokenizer.vocabulary()));
        assert!(tokenizer.is_byte_exact());
        for cut in 0..=tokens.len() {
            let (head, tail) = tokens.split_at(cut);
            let bytes = [tokenizer.decode_bytes(head), tokenizer.decode_bytes(tail)].concat();
            assert_eq!(bytes, TEXT.as_bytes());
        }
    }
}

#[test]
fn every_kind_can_be_saved_and_read_back() {
    for tokenizer in every_kind() {
        let folder = tempfile::tempdir().unwrap();
        tokenizer.save(folder.path()).unwrap();
        let again = Tokenizer::load(folder.path()).unwrap();
        assert_eq!(again.digest(), tokenizer.digest());
        assert_eq!(again.vocabulary(), tokenizer.vocabulary());
        assert_eq!(again.end_of_document(), tokenizer.end_of_document());
        assert_eq!(encode(&again, TEXT), encode(&tokenizer, TEXT));
        // The file for Hugging Face says the same.
        let theirs = theirs(folder.path());
        assert_eq!(theirs.vocabulary(), tokenizer.vocabulary());
        assert_eq!(theirs.end_of_document(), tokenizer.end_of_document());
        assert_eq!(encode(&theirs, TEXT), encode(&tokenizer, TEXT));
        assert_eq!(theirs.decode(&encode(&theirs, TEXT)), TEXT);
    }
}

#[test]
fn different_tokenizers_have_different_digests() {
    let mut digests: Vec<[u8; 32]> = every_kind().iter().map(Tokenizer::digest).collect();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), 4);
}

#[test]
fn training_is_repeatable_and_bounded() {
    let (first, second) = (bpe(), bpe());
    assert_eq!(first.hugging_face_json(), second.hugging_face_json());
    assert!(first.vocabulary() > 257 && first.vocabulary() <= 400);
    assert_eq!(first.end_of_document(), Some(0));
    let tokens = encode(&first, TEXT);
    assert!(tokens.len() < TEXT.len() / 2, "{} tokens", tokens.len());
}

#[test]
fn text_cannot_spell_the_end_of_a_document() {
    let tokenizer = bpe();
    let tokens = encode(&tokenizer, "a<|endoftext|>b");
    assert!(!tokens.contains(&0));
    assert_eq!(tokenizer.decode(&tokens), "a<|endoftext|>b");
    assert_eq!(tokenizer.decode(&[0]), "");
}

#[test]
fn gpt2_is_encoded_as_published() {
    let Some(path) = shared("vocab/gpt2.tokenizer.json") else { return };
    let tokenizer = file(&path);
    assert_eq!((tokenizer.vocabulary(), tokenizer.end_of_document()), (50257, Some(50256)));
    assert_eq!(
        encode(&tokenizer, "Hello, I'm a language model,"),
        [15496, 11, 314, 1101, 257, 3303, 2746, 11]
    );
    assert_eq!(encode(&tokenizer, " \n\n  x's"), [220, 628, 220, 2124, 338]);
}

#[test]
fn the_fast_path_is_exact_on_real_text() {
    let Some(path) = shared("vocab/gpt2.tokenizer.json") else { return };
    let tokenizer = file(&path);
    let mut encoder = tokenizer.encoder();
    for name in ["text/wikitext2.valid.txt", "lang/fr.sentences.txt", "lang/ja.sentences.txt"] {
        let Some(path) = shared(name) else { continue };
        let text = fs::read_to_string(path).unwrap();
        let (mut exact, mut fast) = (Vec::new(), Vec::new());
        tokenizer.encode(&text, &mut exact).unwrap();
        encoder.encode(&text, &mut fast).unwrap();
        assert!(exact == fast, "{name}");
        assert_eq!(tokenizer.decode(&fast), text);
    }
}

#[test]
fn the_fast_path_is_exact_on_odd_words() {
    let sample = ["aaab baaaab ab aab abab aaaa    bbbb bb".repeat(9), "=".repeat(300)];
    let tokenizer = train(290, &sample);
    for length in [1, 2, 3, 4, 7, 15, 31, 32, 33, 127, 128, 129, 1000] {
        for unit in ["a", "ab", "aab", " ", "=", "b=", "\t "] {
            // `encode` of the tests compares with the crate.
            encode(&tokenizer, &unit.repeat(length));
        }
    }
}

proptest! {
    #[test]
    fn the_fast_path_is_exact_on_any_text(
        sample in "[abc '\n\u{e9}]{0,200}",
        text in "[abcd '\n\u{e9}]{0,60}",
    ) {
        let tokenizer = train(300, &[sample.repeat(3)]);
        let tokens = encode(&tokenizer, &text);
        prop_assert_eq!(tokenizer.decode(&tokens), text);
    }
}

#[test]
fn a_broken_tokenizer_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    fs::write(&path, "{\"model\": 3}").unwrap();
    let error = Tokenizer::from_file(&path, TokenizerOptions::default()).err().unwrap();
    assert!(error.is_user_error());
    assert!(error.to_string().contains("tokenizer.json: not a usable tokenizer"), "{error}");
    let missing =
        Tokenizer::from_file(&folder.path().join("none.json"), TokenizerOptions::default())
            .err()
            .unwrap();
    assert!(missing.to_string().ends_with("no such file"));
}

#[test]
fn a_saved_tokenizer_says_all_itself() {
    let folder = tempfile::tempdir().unwrap();
    Tokenizer::bytes().save(folder.path()).unwrap();
    let load = |options| Tokenizer::from_file(folder.path(), options);
    assert!(load(TokenizerOptions::default()).is_ok());
    let ends = TokenizerOptions { end_of_document: Some("</s>"), ..TokenizerOptions::default() };
    let splits = TokenizerOptions { split: Some("gpt2"), ..TokenizerOptions::default() };
    for (options, key) in [(ends, "data.end_of_document"), (splits, "data.split")] {
        let refused = load(options).err().unwrap().to_string();
        assert!(refused.starts_with(key), "{refused}");
    }
}

#[test]
fn ids_are_those_of_the_published_encoders_on_all_data() {
    // Made by scripts/token_ids.
    let golden = include_str!("../../../tests/golden/token_ids.json");
    let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
    let mut files = Vec::new();
    for folder in ["text", "lang"] {
        let folder = Path::new("../shared/data").join(folder);
        let Ok(entries) = fs::read_dir(&folder) else {
            writeln!(std::io::stderr(), "skipped: {} is not there", folder.display()).unwrap();
            return;
        };
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|end| end == "txt"));
        paths.sort();
        files.extend(paths);
    }
    assert_eq!(golden["files"], files.len());
    for (name, expected) in golden["encoders"].as_object().unwrap() {
        let (file, split) =
            name.split_once(' ').map_or((name.as_str(), None), |(a, b)| (a, Some(b)));
        let Some(path) = shared(&format!("vocab/{file}")) else { return };
        let options = TokenizerOptions { split, end_of_document: None };
        let tokenizer = Tokenizer::from_file(&path, options).unwrap();
        let (mut encoder, mut tokens) = (tokenizer.encoder(), Vec::new());
        let (mut hasher, mut count) = (blake3::Hasher::new(), 0);
        for file in &files {
            tokens.clear();
            encoder.encode(&fs::read_to_string(file).unwrap(), &mut tokens).unwrap();
            for token in &tokens {
                hasher.update(&token.to_le_bytes());
            }
            count += tokens.len();
        }
        assert_eq!(expected["tokens"], count, "{name}");
        assert_eq!(expected["blake3"], hasher.finalize().to_hex().as_str(), "{name}");
    }
}
