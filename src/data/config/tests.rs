//! Tests of the `[data]` table: spellings, defaults, and one clear sentence per mistake.

use super::{DataConfig, TextSpec, TokenizerSpec};

fn parse(text: &str) -> Result<DataConfig, String> {
    toml::from_str(text).map_err(|error| error.message().to_owned())
}

fn refusal(text: &str) -> String {
    parse(text).unwrap().validate().unwrap_err().to_string()
}

#[test]
fn defaults_are_usable_and_survive_a_round_trip() {
    let config = parse("").unwrap();
    assert_eq!(config, DataConfig::default());
    config.validate().unwrap();
    let written = toml::to_string(&config).unwrap();
    assert!(!written.contains("cache"));
    assert_eq!(parse(&written).unwrap(), config);
}

#[test]
fn text_is_one_source_or_a_list() {
    assert_eq!(parse("text = \"a.txt\"").unwrap().text, TextSpec::from("a.txt"));
    let list = parse("text = [\"a.txt\", \"b\"]").unwrap();
    assert_eq!(list.text, TextSpec(vec!["a.txt".to_owned(), "b".to_owned()]));
    assert_eq!(parse(&toml::to_string(&list).unwrap()).unwrap(), list);
    let error = parse("text = 3").unwrap_err();
    assert!(error.contains("expected a file, a folder, a list of either"), "{error}");
}

#[test]
fn unknown_keys_are_errors() {
    let error = parse("txet = \"a\"").unwrap_err();
    assert!(error.contains("unknown field `txet`"), "{error}");
}

#[test]
fn tokenizers_are_recognised() {
    let spec = |value| TokenizerSpec::parse(value).unwrap();
    assert_eq!(spec("bytes"), TokenizerSpec::Bytes);
    assert_eq!(spec("characters"), TokenizerSpec::Characters);
    assert_eq!(spec("bpe:4096"), TokenizerSpec::Bpe(4096));
    assert_eq!(spec("./gpt2"), TokenizerSpec::File("./gpt2".into()));
    assert_eq!(spec("gpt2.json"), TokenizerSpec::File("gpt2.json".into()));
}

#[test]
fn every_mistake_names_its_key() {
    assert_eq!(
        refusal("tokenizer = \"bpe:x\""),
        "data.tokenizer: expected \"bytes\", \"characters\", \"bpe:N\" or a file, got \"bpe:x\""
    );
    assert_eq!(
        refusal("tokenizer = \"byte\""),
        "data.tokenizer: expected \"bytes\", \"characters\", \"bpe:N\" or a file, got \"byte\""
    );
    assert_eq!(
        refusal("tokenizer = \"bpe:256\""),
        "data.tokenizer: expected a size of at least 257 in \"bpe:N\", got \"bpe:256\""
    );
    assert!(refusal("text = []").starts_with("data.text: expected a file"));
    assert!(refusal("text = [\"a\", \"\"]").starts_with("data.text: expected a file"));
    assert!(refusal("cache = \"\"").starts_with("data.cache: expected a folder"));
    for fraction in ["1.0", "-0.1", "nan"] {
        let error = refusal(&format!("validation_fraction = {fraction}"));
        assert!(error.starts_with("data.validation_fraction: expected a number"), "{error}");
    }
}
