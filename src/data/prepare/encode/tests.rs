//! Tests that threads change the time and nothing else.

use super::{BATCH_BYTES, encode, encode_all};
use crate::data::{Corpus, TextSpec, Tokenizer};

fn texts() -> Vec<String> {
    (0..200).map(|i| format!("document {i} ").repeat(1 + i * 37 % 50)).collect()
}

#[test]
fn any_number_of_threads_gives_the_same_tokens() {
    let texts = texts();
    let tokenizer = Tokenizer::train_bpe(300, &texts).unwrap();
    let with = |threads: usize| {
        let mut encoders: Vec<_> = (0..threads).map(|_| tokenizer.encoder()).collect();
        encode_all(&mut encoders, &texts).unwrap()
    };
    let one = with(1);
    assert_eq!(one.len(), texts.len());
    for (tokens, text) in one.iter().zip(&texts) {
        assert_eq!(&tokenizer.decode(tokens), text);
    }
    for threads in [2, 3, 16, 300] {
        assert_eq!(with(threads), one);
    }
}

#[test]
fn an_unknown_character_is_reported_by_whichever_thread_meets_it() {
    let tokenizer = Tokenizer::characters("ab".chars(), true);
    let mut encoders = [tokenizer.encoder(), tokenizer.encoder()];
    let texts = ["ab".to_owned(), "ac".to_owned(), "ba".to_owned()];
    let error = encode_all(&mut encoders, &texts).unwrap_err().to_string();
    assert!(error.starts_with("the character 'c' at byte 1"), "{error}");
}

#[test]
fn documents_larger_than_a_batch_keep_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let lengths = [5, BATCH_BYTES + 9, 7, BATCH_BYTES - 3, 11];
    for (name, length) in ["a", "b", "c", "d", "e"].iter().zip(lengths) {
        let path = folder.path().join(format!("{name}.txt"));
        std::fs::write(path, name.repeat(length)).unwrap();
    }
    let text = TextSpec::from(folder.path().to_str().unwrap());
    let corpus = Corpus::scan(&text, &mut |_| {}).unwrap();
    let spool = folder.path().join("spool");
    let encoded = encode(&corpus, &Tokenizer::bytes(), &spool, &mut |_| {}).unwrap();
    assert_eq!(encoded.text_bytes, lengths.map(|length| length as u64));
    let mut start = 0;
    for (document, length) in (0..).zip(lengths) {
        assert_eq!(encoded.shard.document_start(document).unwrap(), start);
        let mut ends = [0u32; 2];
        encoded.shard.read(start + length as u64 - 1, &mut ends).unwrap();
        assert_eq!(ends, [u32::from(b'a') + document as u32, 256]);
        start += length as u64 + 1;
    }
}
