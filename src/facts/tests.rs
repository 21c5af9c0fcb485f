//! What is said of input whose meaning builds have changed.

use std::path::Path;

use super::{meanings, other_meanings};
use crate::config::Config;
use crate::data::Tokenizer;
use crate::text::check_tokens;

const ENCODER: &str = "[model]\nfamily = \"encoder\"\n[objective]\nkind = \"masked\"\n";

fn config(text: &str, sets: &[&str]) -> Config {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Config::parse(text, Path::new("a.toml"), &sets).unwrap()
}

/// A tokenizer of words with `[MASK]`, 2, as a special token.
fn words() -> Tokenizer {
    let json = br#"{
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [{
            "id": 2, "content": "[MASK]", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true
        }],
        "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": { "a": 0, "[CLS]": 1 }, "unk_token": "a" }
    }"#;
    Tokenizer::from_json(Path::new("words.json"), json.to_vec(), None).unwrap()
}

fn all(config: &Config, tokenizer: &Tokenizer) -> Vec<[String; 3]> {
    let meanings = meanings(config, tokenizer).into_iter();
    meanings.map(|meaning| [meaning.name.to_owned(), meaning.now, meaning.before]).collect()
}

#[test]
fn only_what_a_run_has_is_said_of_it() {
    let bytes = Tokenizer::bytes();
    assert!(all(&Config::default(), &bytes).is_empty());
    let [types, special] = &all(&config(ENCODER, &[]), &bytes)[..] else { panic!("not two") };
    assert_eq!(types[0], "the type of text that is no pair");
    assert_ne!(types[1], types[2]);
    assert_eq!(special[..], ["the special tokens", "[MASK] 257", "[MASK] 257"]);
    // Pairs have types, and a second model is a model.
    let pairs = all(&config(ENCODER, &["objective.next_sentence=true"]), &bytes);
    assert!(pairs.iter().map(|meaning| &meaning[0]).eq(["the special tokens"]));
    let beside = "[model]\n[model.parts.bert]\nfamily = \"encoder\"\n\
                  [[tracks]]\nname = \"lm\"\n[[tracks]]\nname = \"bert\"\nmodel = \"bert\"\n\
                  objective = { kind = \"masked\" }\n";
    assert_eq!(all(&config(beside, &[]), &bytes).len(), 2);
}

#[test]
fn special_tokens_were_behind_the_tokenizers_own_and_are_now_found_by_name() {
    let pairs = config(ENCODER, &["objective.next_sentence=true"]);
    let special = &all(&pairs, &words())[0];
    assert_eq!(special[1..], ["[MASK] 2, [CLS] 3, [SEP] 4", "[MASK] 3, [CLS] 4, [SEP] 5"]);
    // A checkpoint that says nothing had the old ones.
    let others = other_meanings(&Default::default(), &pairs, &words());
    assert_eq!((others.len(), &others[0].1), (1, &special[2]));
    let named = [(special[0].clone(), special[1].clone())].into();
    assert!(other_meanings(&named, &pairs, &words()).is_empty());
}

#[test]
fn special_tokens_that_a_text_could_spell_are_refused() {
    assert!(check_tokens(&config(ENCODER, &[]), &words()).is_ok());
    let pairs = config(ENCODER, &["objective.next_sentence=true"]);
    let refused = check_tokens(&pairs, &words()).unwrap_err().to_string();
    assert!(refused.starts_with("data.tokenizer: ") && refused.contains("[CLS] is a word"));
    assert!(check_tokens(&pairs, &Tokenizer::bytes()).is_ok());
}
