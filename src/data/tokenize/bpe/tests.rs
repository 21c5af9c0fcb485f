//! Tests of learning byte pairs, against the crate's own trainer.

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::tokenizer::Trainer;
use tokenizers::{
    AddedToken, Model, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use super::{END_OF_DOCUMENT, train};
use crate::data::DataError;
use crate::data::tokenize::tests::shared;

/// Vocabulary and merges as the crate learns them.
fn reference(size: usize, sample: &[String]) -> BPE {
    let mut trainer = BpeTrainer::builder()
        .vocab_size(size)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(END_OF_DOCUMENT, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let words = |text: &str| {
        let mut split = PreTokenizedString::from(text);
        ByteLevel::new(false, true, true).pre_tokenize(&mut split)?;
        let found = split.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Ok(found.into_iter().map(|(word, _, _)| word.to_owned()).collect())
    };
    trainer.feed(sample.iter(), words).unwrap();
    let mut model = BPE::default();
    trainer.train(&mut model).unwrap();
    model
}

fn assert_same(size: usize, sample: &[String]) {
    let json = train(size, sample, END_OF_DOCUMENT, &mut || Ok(())).unwrap();
    let ours: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let theirs = reference(size, sample);
    let vocabulary = ours["model"]["vocab"].as_object().unwrap();
    assert_eq!(vocabulary.len(), theirs.get_vocab_size());
    for (token, id) in vocabulary {
        assert_eq!(theirs.token_to_id(token).map(u64::from), id.as_u64(), "{token}");
    }
}

#[test]
fn it_learns_what_the_crate_learns() {
    assert_same(300, &["one fish two fish red fish blue fish".to_owned()]);
    assert_same(400, &["aaaa aaa abab bab aab ".repeat(3), "it's caf\u{e9}\n\n".repeat(5)]);
    assert_same(257, &["nothing to learn".to_owned()]);
}

#[test]
fn it_learns_what_the_crate_learns_from_real_text() {
    let Some(path) = shared("text/tinyshakespeare.txt") else { return };
    let text = std::fs::read_to_string(path).unwrap();
    assert_same(2000, &[text[..300_000].to_owned()]);
}

#[test]
fn it_can_be_ended() {
    let error = train(400, &["a b".to_owned()], "</s>", &mut || Err(DataError::Interrupted));
    assert!(matches!(error, Err(DataError::Interrupted)));
}
