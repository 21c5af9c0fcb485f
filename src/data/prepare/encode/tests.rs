//! Tests that threads change the time and nothing else.

use std::ops::ControlFlow;
use std::path::Path;

use super::{Encoded, encode};
use crate::data::prepare::Watch;
use crate::data::{Corpus, DataError, TextSpec, Tokenizer};

/// Small documents, lines, and documents of several parts.
fn corpus(folder: &Path) -> Corpus {
    for (number, name) in ["a.txt", "b.txt", "d.txt", "e.txt"].iter().enumerate() {
        let text = format!("document {number} says it again. ").repeat(1 + number * 30_000);
        std::fs::write(folder.join(name), text).unwrap();
    }
    let line = |i: usize| format!("{{\"text\": \"line {i} {}\"}}\n", "of words ".repeat(i % 60));
    std::fs::write(folder.join("c.jsonl"), (0..9000).map(line).collect::<String>()).unwrap();
    let text = TextSpec::from(folder.to_str().unwrap());
    Corpus::scan(&text.into(), &mut |_| Ok(())).unwrap()
}

fn with(
    corpus: &Corpus,
    tokenizer: &Tokenizer,
    spool: &Path,
    threads: usize,
) -> Result<Encoded, DataError> {
    encode(corpus, tokenizer, spool, threads, &mut Watch(&mut |_| ControlFlow::Continue(())))
}

#[test]
fn any_number_of_threads_gives_the_same_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let spool = tempfile::tempdir().unwrap();
    let corpus = corpus(folder.path());
    let sample = ["document 1 says it again. line 3 of words ".repeat(9)];
    let tokenizer = Tokenizer::train_bpe(300, &sample, None, &mut || Ok(())).unwrap();
    let spool = spool.path().join("spool");
    let one = with(&corpus, &tokenizer, &spool, 1).unwrap();
    assert_eq!(one.text_bytes.len(), 4 + 9000);
    let contents = one.shard.contents();
    // As if every document were encoded on its own.
    let mut whole = Vec::new();
    let mut pieces: Vec<String> = Vec::new();
    corpus
        .for_each(&mut |text, begins| {
            match pieces.last_mut().filter(|_| !begins) {
                Some(last) => last.push_str(text),
                None => pieces.push(text.to_owned()),
            }
            Ok(())
        })
        .unwrap();
    for (document, text) in (0..).zip(&pieces) {
        assert_eq!(one.shard.document_start(document).unwrap(), whole.len() as u64);
        tokenizer.encoder().encode(text, &mut whole).unwrap();
        whole.extend(tokenizer.end_of_document());
    }
    let mut tokens = vec![0u32; one.shard.tokens() as usize];
    one.shard.read(0, &mut tokens).unwrap();
    assert!(tokens == whole);
    for threads in [2, 3, 16] {
        let other = with(&corpus, &tokenizer, &spool, threads).unwrap();
        assert_eq!(other.shard.contents(), contents);
        assert_eq!(other.text_bytes, one.text_bytes);
    }
}

#[test]
fn the_first_error_in_the_text_is_reported_by_whichever_thread_meets_it() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = corpus(folder.path());
    let tokenizer = Tokenizer::characters("document 0123 says it again.".chars(), true);
    let spool = folder.path().join("spool");
    for threads in [1, 4] {
        let error = with(&corpus, &tokenizer, &spool, threads).err().unwrap().to_string();
        assert!(error.starts_with("the character 'l' at byte 0"), "{error}");
    }
    assert!(!spool.exists());
}

#[test]
fn it_ends_when_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = corpus(folder.path());
    let spool = folder.path().join("spool");
    let mut told = 0;
    let mut watcher = |_| {
        told += 1;
        if told > 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let ended = encode(&corpus, &Tokenizer::bytes(), &spool, 2, &mut Watch(&mut watcher));
    assert!(matches!(ended, Err(DataError::Interrupted)));
    assert!(!spool.exists());
}
