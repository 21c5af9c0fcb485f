//! Tests that the measurements measure what they say, and their figures on our own packages.

use std::io::Write;

use super::{encode_speed, window_speed};
use crate::data::tokenize::tests::shared;
use crate::data::{Corpus, DataConfig, TextSpec, TokenStream, Tokenizer, prepare};

#[test]
fn everything_is_measured_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.txt");
    std::fs::write(&file, "x".repeat(5000)).unwrap();
    let text = TextSpec::from(file.to_str().unwrap());
    let corpus = Corpus::scan(&text, &mut |_| {}).unwrap();
    let speed = encode_speed(&corpus, &Tokenizer::bytes()).unwrap();
    assert_eq!((speed.text_bytes, speed.tokens), (5000, 5000));
    assert!(speed.seconds > 0.0 && speed.mb_per_s > 0.0);
    let config =
        DataConfig { text, cache: Some(folder.path().join("cache")), ..DataConfig::default() };
    let prepared = prepare(&config, None, &mut |_| {}).unwrap();
    let stream = TokenStream::open(&prepared.train).unwrap();
    let layout = config.window_layout(100);
    let speed = window_speed(&stream, &layout, 300).unwrap();
    assert_eq!((speed.windows, speed.targets), (300, 30_000));
    assert!(speed.tokens_per_s > 0.0);
}

/// `cargo test --release --lib data::measure -- --ignored --nocapture`
#[test]
#[ignore = "prints speeds; takes a while"]
fn speeds_on_our_own_packages() {
    let mut out = std::io::stderr();
    let folder = tempfile::tempdir().unwrap();
    let config = DataConfig {
        tokenizer: "bpe:4096".to_owned(),
        cache: Some(folder.path().to_owned()),
        ..DataConfig::default()
    };
    let mut begun = std::time::Instant::now();
    let mut stage = None;
    let prepared = prepare(&config, None, &mut |now| {
        if stage != Some(now.stage) {
            writeln!(out, "{:?} ends after {:?}", stage, begun.elapsed()).unwrap();
            stage = Some(now.stage);
            begun = std::time::Instant::now();
        }
    })
    .unwrap();
    writeln!(std::io::stderr(), "{stage:?} ends after {:?}", begun.elapsed()).unwrap();
    assert_eq!(prepared.documents, prepared.files);
    let mut out = std::io::stderr();
    writeln!(out, "{} train tokens, {}", prepared.train_tokens, prepared.identity).unwrap();
    let cargo = Corpus::scan(&config.text, &mut |_| {}).unwrap();
    let mut corpora = vec![("cargo", cargo)];
    if let Some(path) = shared("text/english.txt") {
        let text = TextSpec::from(path.to_str().unwrap());
        corpora.push(("english", Corpus::scan(&text, &mut |_| {}).unwrap()));
    }
    let mut tokenizers = vec![("bpe:4096", prepared.tokenizer), ("bytes", Tokenizer::bytes())];
    if let Some(path) = shared("vocab/gpt2.tokenizer.json") {
        tokenizers.push(("gpt2", Tokenizer::from_file(&path).unwrap()));
    }
    for (text, corpus) in &corpora {
        for (name, tokenizer) in &tokenizers {
            let speed = encode_speed(corpus, tokenizer).unwrap();
            assert!(speed.mb_per_s > 0.0);
            writeln!(out, "{text} {name}: {speed:?}").unwrap();
        }
    }
    let stream = TokenStream::open(&prepared.train).unwrap();
    for length in [64, 256, 1024, 8192] {
        let layout = config.window_layout(length);
        let speed = window_speed(&stream, &layout, (1 << 25) / length as u64).unwrap();
        assert!(speed.targets > 0);
        writeln!(out, "T {length}: {speed:?}").unwrap();
    }
}
