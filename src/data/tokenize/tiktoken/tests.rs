//! Tests of files of ranks, against what Python's `tiktoken` 0.14.0 gave
//! (`Encoding(...).encode_ordinary`) for the same files.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::data::tokenize::tests::shared;
use crate::data::{DataError, Tokenizer, TokenizerOptions};

/// Ranks, text, number of tokens, and FNV-1a of the ids as little-endian words.
const EXPECTED: [(&str, &str, usize, u64); 21] = [
    ("cl100k_base.tiktoken", "text/tinyshakespeare.txt", 301829, 0x87bea6dcec9f8709),
    ("cl100k_base.tiktoken", "text/wikitext2.valid.txt", 262100, 0xd130ec657100e630),
    ("cl100k_base.tiktoken", "text/english.txt", 1820038, 0xcdc23603caaaec58),
    ("cl100k_base.tiktoken", "lang/fr.sentences.txt", 31658, 0xa30c0ae503fec81c),
    ("cl100k_base.tiktoken", "lang/ja.sentences.txt", 19488, 0xd2805ca2bec9e017),
    ("cl100k_base.tiktoken", "lang/ar.sentences.txt", 63059, 0xbcd3abc3f3ac3d56),
    ("cl100k_base.tiktoken", "lang/hi.sentences.txt", 80409, 0xf94d47c1f09ca76b),
    ("llama3.tokenizer.model", "text/tinyshakespeare.txt", 301768, 0x9872323539695389),
    ("llama3.tokenizer.model", "text/wikitext2.valid.txt", 262066, 0x451d0d8376bdd643),
    ("llama3.tokenizer.model", "text/english.txt", 1819839, 0xac2ba111e459d780),
    ("llama3.tokenizer.model", "lang/fr.sentences.txt", 31605, 0x71aa8af46341b165),
    ("llama3.tokenizer.model", "lang/ja.sentences.txt", 12943, 0xce2483caa04630cd),
    ("llama3.tokenizer.model", "lang/ar.sentences.txt", 34163, 0x63dc893dcb5751ae),
    ("llama3.tokenizer.model", "lang/hi.sentences.txt", 42697, 0x5db600737c80a9a8),
    ("r50k_base.tiktoken", "text/tinyshakespeare.txt", 338025, 0xe22fcd868ca90167),
    ("r50k_base.tiktoken", "text/wikitext2.valid.txt", 258659, 0xc72cc3b3b31baa00),
    ("r50k_base.tiktoken", "text/english.txt", 1915907, 0x977092e590e5fbce),
    ("r50k_base.tiktoken", "lang/fr.sentences.txt", 39536, 0xbc29b289d322982e),
    ("r50k_base.tiktoken", "lang/ja.sentences.txt", 26220, 0xaa1d15a54831de63),
    ("r50k_base.tiktoken", "lang/ar.sentences.txt", 89435, 0xffc82b2454995949),
    ("r50k_base.tiktoken", "lang/hi.sentences.txt", 123242, 0x118d8bc77eb7c4d0),
];

fn fnv(ids: &[u32]) -> u64 {
    let bytes = ids.iter().flat_map(|id| id.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut tokens = Vec::new();
    tokenizer.encoder().encode(text, &mut tokens).unwrap();
    tokens
}

fn open(path: &Path, options: TokenizerOptions<'_>) -> Tokenizer {
    Tokenizer::from_file(path, options).unwrap()
}

#[test]
fn ids_are_those_of_tiktoken() {
    let mut last: Option<(&str, Tokenizer)> = None;
    for (ranks, text, count, hash) in EXPECTED {
        let Some(path) = shared(&format!("vocab/{ranks}")) else { return };
        let Some(text_path) = shared(text) else { return };
        if last.as_ref().is_none_or(|(name, _)| *name != ranks) {
            last = Some((ranks, open(&path, TokenizerOptions::default())));
        }
        let tokenizer = &last.as_ref().unwrap().1;
        let text = fs::read_to_string(text_path).unwrap();
        let ids = encode(tokenizer, &text);
        assert_eq!((ids.len(), fnv(&ids)), (count, hash), "{ranks}");
        assert!(tokenizer.decode(&ids) == text);
    }
}

#[test]
fn spaces_at_the_end_and_contractions_are_those_of_tiktoken() {
    let odd = "it's  'S x'LL \n\n\t 12345 x\r\n\r\n  end \n  ";
    let cl100k = [
        275, 596, 220, 364, 50, 865, 6, 4178, 4815, 197, 220, 4513, 1774, 865, 881, 220, 842, 720,
        256,
    ];
    let r50k = [
        270, 338, 220, 705, 50, 2124, 6, 3069, 220, 628, 197, 17031, 2231, 2124, 201, 198, 201,
        198, 220, 886, 220, 198, 220, 220,
    ];
    for (name, expected) in [
        ("cl100k_base.tiktoken", cl100k.as_slice()),
        ("llama3.tokenizer.model", cl100k.as_slice()),
        ("r50k_base.tiktoken", r50k.as_slice()),
    ] {
        let Some(path) = shared(&format!("vocab/{name}")) else { return };
        let tokenizer = open(&path, TokenizerOptions::default());
        assert_eq!(encode(&tokenizer, odd), expected, "{name}");
    }
}

#[test]
fn ranks_and_the_hugging_face_file_are_the_same_tokenizer() {
    let Some(ranks) = shared("vocab/r50k_base.tiktoken") else { return };
    let Some(json) = shared("vocab/gpt2.tokenizer.json") else { return };
    let [ranks, json] = [ranks, json].map(|path| open(&path, TokenizerOptions::default()));
    assert_eq!(ranks.vocabulary(), json.vocabulary());
    assert_eq!(ranks.end_of_document(), json.end_of_document());
    for name in ["text/tinyshakespeare.txt", "text/wikitext2.test.txt", "lang/zh.sentences.txt"] {
        let Some(path) = shared(name) else { continue };
        let text = fs::read_to_string(path).unwrap();
        assert!(encode(&ranks, &text) == encode(&json, &text), "{name}");
    }
}

#[test]
fn sizes_and_ends_follow_from_the_name() {
    for (name, size, end) in [
        ("cl100k_base.tiktoken", 100_277, 100_257),
        ("llama3.tokenizer.model", 128_256, 128_001),
        ("r50k_base.tiktoken", 50_257, 50_256),
    ] {
        let Some(path) = shared(&format!("vocab/{name}")) else { return };
        let tokenizer = open(&path, TokenizerOptions::default());
        assert_eq!((tokenizer.vocabulary(), tokenizer.end_of_document()), (size, Some(end)));
        assert_eq!(tokenizer.decode(&[end]), "");
    }
}

/// All bytes, and some pairs: a vocabulary of its own.
fn own(folder: &Path) -> std::path::PathBuf {
    let mut tokens: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
    tokens.extend(["th", "he", "the", " the", "  "].map(|token| token.as_bytes().to_vec()));
    let line = |(rank, token): (usize, &Vec<u8>)| format!("{} {rank}\n", STANDARD.encode(token));
    let path = folder.join("own.tiktoken");
    fs::write(&path, tokens.iter().enumerate().map(line).collect::<String>()).unwrap();
    path
}

#[test]
fn an_unknown_file_needs_a_pattern_and_is_saved_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = own(folder.path());
    let error = Tokenizer::from_file(&path, TokenizerOptions::default()).err().unwrap();
    assert!(error.is_user_error() && error.to_string().contains("set data.split"), "{error}");
    let options = TokenizerOptions { split: Some("gpt2"), end_of_document: Some("</s>") };
    let tokenizer = open(&path, TokenizerOptions { end_of_document: None, ..options });
    assert_eq!(encode(&tokenizer, "the the  th"), [258, 259, 32, 32, 256]);
    assert_eq!((tokenizer.vocabulary(), tokenizer.end_of_document()), (262, Some(261)));
    let options = TokenizerOptions { split: Some("\\w+|\\s+|[^\\w\\s]+"), ..options };
    let tokenizer = open(&path, options);
    assert_eq!(encode(&tokenizer, "the </s>"), [258, 32, 60, 47, 115, 62]);
    assert_eq!((tokenizer.vocabulary(), tokenizer.end_of_document()), (262, Some(261)));
    let saved = folder.path().join("saved");
    fs::create_dir(&saved).unwrap();
    tokenizer.save(&saved).unwrap();
    let again = Tokenizer::load(&saved).unwrap();
    assert_eq!(again.digest(), tokenizer.digest());
    assert_eq!(encode(&again, "the  the"), encode(&tokenizer, "the  the"));
    let theirs = open(&saved.join("tokenizer.json"), TokenizerOptions::default());
    let mut crates = Vec::new();
    theirs.encode("the th  <he>", &mut crates).unwrap();
    assert_eq!(crates, encode(&tokenizer, "the th  <he>"));
    assert_eq!(theirs.end_of_document(), Some(261));
}

#[test]
fn a_damaged_file_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let good = fs::read_to_string(own(folder.path())).unwrap();
    let path = folder.path().join("r50k.tiktoken");
    for (bad, what) in [
        (good.replacen("AQ== 1\n", "AQ== one\n", 1), "line 2: expected a base64 token"),
        (good.replacen("AQ== 1\n", "", 1), "no token for the byte 1"),
        (good.replacen("AQ== 1\n", "AQ== 2\n", 1), "rank 2 stands there twice"),
        (good.replacen("AQ== 1\n", "AQ== 900000\n", 1), "got 900000"),
    ] {
        fs::write(&path, bad).unwrap();
        let error = Tokenizer::from_file(&path, TokenizerOptions::default()).err().unwrap();
        assert!(matches!(error, DataError::Tokenizer { .. }) && error.is_user_error());
        let message = error.to_string();
        assert!(message.contains("r50k.tiktoken: not a usable tokenizer: "), "{message}");
        assert!(message.contains(what), "{message}");
    }
}
