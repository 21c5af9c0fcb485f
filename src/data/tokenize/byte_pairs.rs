//! The fast encoder of byte-level byte pair encodings.
//!
//! Duty: splits, looks words up in a memory, and merges only words that are not there; reads all
//! it needs from a `tokenizer.json` if nothing else in the file looks at the text.
//! Prohibition: no special tokens.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::bpe::byte_characters;
use super::merges::Merges;
use super::pattern::Pattern;
use super::split::Splitter;
use super::word_cache::{Key, WordCache};

/// A splitting pattern and merges.
pub(super) struct BytePairs {
    pub(super) splitter: Splitter,
    pub(super) merges: Merges,
    /// Words that are tokens, where these need no merges.
    pub(super) whole: HashMap<Box<[u8]>, u32>,
}

/// What one thread keeps while it encodes.
pub(super) struct Memory {
    cache: WordCache,
    scratch: Vec<u32>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self { cache: WordCache::new(), scratch: Vec::new() }
    }
}

impl BytePairs {
    /// Appends the tokens of a text.
    ///
    /// # Errors
    /// What the splitter says.
    pub(super) fn encode(
        &self,
        memory: &mut Memory,
        text: &str,
        tokens: &mut Vec<u32>,
    ) -> Result<(), String> {
        let Memory { cache, scratch } = memory;
        self.splitter.words(text, |word| {
            let Some(key) = Key::new(word) else { return self.word(word, scratch, tokens) };
            if let Some(found) = cache.get(key) {
                tokens.extend_from_slice(found);
                return;
            }
            let first = tokens.len();
            self.word(word, scratch, tokens);
            cache.put(key, &tokens[first..]);
        })
    }

    /// As [`Self::encode`], without memory: for a few words.
    pub(super) fn encode_once(&self, text: &str, tokens: &mut Vec<u32>) -> Result<(), String> {
        let mut scratch = Vec::new();
        self.splitter.words(text, |word| self.word(word, &mut scratch, tokens))
    }

    fn word(&self, word: &[u8], scratch: &mut Vec<u32>, tokens: &mut Vec<u32>) {
        match self.whole.get(word) {
            Some(&token) => tokens.push(token),
            None => self.merges.encode(word, scratch, tokens),
        }
    }

    /// The encoder of a `tokenizer.json` that is a byte-level byte pair encoding and nothing
    /// else; `None` if the file says more than this encoder does.
    pub(super) fn of_json(json: &[u8]) -> Option<Self> {
        let File { model, normalizer, pre_tokenizer, decoder, added_tokens } =
            serde_json::from_slice(json).ok()?;
        let affixes = [&model.continuing_subword_prefix, &model.end_of_word_suffix];
        let plain = normalizer.is_null()
            && decoder["type"] == "ByteLevel"
            && model.kind.as_deref().is_none_or(|kind| kind == "BPE")
            && affixes.into_iter().flatten().all(String::is_empty)
            && added_tokens.iter().all(|token| token.special);
        if !plain {
            return None;
        }
        let splitter = Splitter::new(&pattern_of(&pre_tokenizer)?).ok()?;
        let characters = byte_characters();
        let mut byte_tokens = [0; 256];
        let mut spelled = [0; 4];
        for (token, character) in byte_tokens.iter_mut().zip(characters) {
            *token = *model.vocab.get(character.encode_utf8(&mut spelled) as &str)?;
        }
        let pairs: Option<Vec<_>> = (0u32..)
            .zip(&model.merges)
            .map(|(rank, pair)| {
                let (left, right) = match pair {
                    Pair::Two(left, right) => (left.as_str(), right.as_str()),
                    Pair::Spaced(both) => both.split_once(' ')?,
                };
                let result = *model.vocab.get(&format!("{left}{right}"))?;
                Some(((*model.vocab.get(left)?, *model.vocab.get(right)?), (rank, result)))
            })
            .collect();
        let mut whole = HashMap::new();
        if model.ignore_merges {
            let bytes: HashMap<char, u8> = characters.into_iter().zip(0..=255).collect();
            for (token, &id) in &model.vocab {
                // What is spelled with other characters is never a word.
                let word: Option<Box<[u8]>> =
                    token.chars().map(|c| bytes.get(&c).copied()).collect();
                whole.extend(word.map(|word| (word, id)));
            }
        }
        Some(Self { splitter, merges: Merges::new(byte_tokens, pairs?.into_iter()), whole })
    }
}

/// The parts of a `tokenizer.json` that decide tokens.
#[derive(Deserialize)]
struct File {
    model: Model,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    added_tokens: Vec<Added>,
}

#[derive(Deserialize)]
struct Added {
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: HashMap<String, u32>,
    merges: Vec<Pair>,
    #[serde(default)]
    ignore_merges: bool,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
}

/// A merge as it is written today, or as it was before `tokenizers` 0.20.
#[derive(Deserialize)]
#[serde(untagged)]
enum Pair {
    Two(String, String),
    Spaced(String),
}

/// The pattern of a pre-tokenizer that splits once and spells bytes.
fn pattern_of(pre_tokenizer: &Value) -> Option<Pattern> {
    let byte_level = |step: &Value, use_regex: bool| {
        step["type"] == "ByteLevel"
            && step["add_prefix_space"] == false
            && step["use_regex"].as_bool().unwrap_or(true) == use_regex
    };
    if byte_level(pre_tokenizer, true) {
        return Some(Pattern::Gpt2);
    }
    let [split, spell] = pre_tokenizer["pretokenizers"].as_array()?.as_slice() else { return None };
    let invert = split["invert"].as_bool().unwrap_or(false);
    // Matches stand alone; the inverted form drops what is between them, and the patterns that
    // are written so leave nothing there.
    let keeps = match split["behavior"].as_str()? {
        "Isolated" => !invert,
        "Removed" => invert,
        _ => false,
    };
    let expression = split["pattern"]["Regex"].as_str()?;
    let pattern = Pattern::of_regex(expression);
    let whole = !invert || !matches!(pattern, Pattern::Regex(_));
    let plain = pre_tokenizer["type"] == "Sequence"
        && split["type"] == "Split"
        && byte_level(spell, false)
        && keeps
        && whole;
    plain.then_some(pattern)
}
