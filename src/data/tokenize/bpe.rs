//! Byte-level byte pair encoding, learned from a sample of the text.
//!
//! Duty: `bpe:N` as a Hugging Face `tokenizer.json`: GPT-2's splitting pattern, all 256 bytes,
//! one special token (id 0) for the end of a document, merges by frequency. The same sample
//! gives the same file. Prohibition: keeps nothing; the result is the JSON text.

use serde_json::{Map, Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::tokenizer::Trainer;
use tokenizers::{AddedToken, Tokenizer};

use super::split::byte_level_words;

/// How the end of a document is spelled in `tokenizer.json`.
pub const END_OF_DOCUMENT: &str = "<|endoftext|>";
/// A pair must occur this often to be merged.
const MIN_FREQUENCY: u64 = 2;

/// Learns at most `size` tokens (at least 257) from `sample`; a small sample gives fewer.
///
/// # Errors
/// The trainer's own words.
pub fn train(size: usize, sample: &[String]) -> Result<Vec<u8>, String> {
    train_tokenizer(size, sample).map_err(|error| error.to_string())
}

fn train_tokenizer(size: usize, sample: &[String]) -> tokenizers::Result<Vec<u8>> {
    let mut trainer = BpeTrainer::builder()
        .vocab_size(size)
        .min_frequency(MIN_FREQUENCY)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(END_OF_DOCUMENT, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    trainer.feed(sample.iter(), byte_level_words)?;
    let mut model = BPE::default();
    let special = trainer.train(&mut model)?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer
        .with_pre_tokenizer(Some(ByteLevel::new(false, true, true)))
        .with_decoder(Some(ByteLevel::new(false, true, true)));
    tokenizer.add_special_tokens(special)?;
    Ok(tokenizer.to_string(false)?.into_bytes())
}

/// GPT-2's printable character for each byte: printable Latin-1 stands for itself, the rest
/// follows from U+0100 (`bytes_to_unicode` in openai/gpt-2 `src/encoder.py`).
pub(super) fn byte_characters() -> [char; 256] {
    let mut table = ['\0'; 256];
    let mut next = 0x100u32;
    for byte in 0..=255u8 {
        let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        table[byte as usize] = if printable {
            byte as char
        } else {
            next += 1;
            char::from_u32(next - 1).expect("U+0100 to U+0143 are characters")
        };
    }
    table
}

/// The `bytes` tokenizer in Hugging Face's format: byte pairs without merges.
pub(super) fn bytes_json() -> Vec<u8> {
    let vocabulary: Map<String, Value> =
        (0u32..).zip(byte_characters()).map(|(id, one)| (one.to_string(), id.into())).collect();
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false
    });
    let whole = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{
            "id": super::BYTES_END_OF_DOCUMENT, "content": END_OF_DOCUMENT,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true
        }],
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": vocabulary, "merges": []
        }
    });
    serde_json::to_vec_pretty(&whole).expect("strings and numbers are valid JSON")
}
