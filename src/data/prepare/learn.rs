//! Tokenizers that are made from the text.
//!
//! Duty: the alphabet of `characters`, and the sample that `bpe:N` learns from. Limits: holds the
//! sample. Prohibition: no chance but the number of a block.

use std::collections::BTreeSet;

use super::{Stage, Watch};
use crate::data::config::{DataConfig, TokenizerSpec};
use crate::data::error::DataError;
use crate::data::order::mix;
use crate::data::source::Corpus;
use crate::data::tokenize::{Tokenizer, TokenizerOptions};

/// Text that `bpe:N` learns from, about; larger corpora are sampled.
const SAMPLE_BYTES: u64 = 8 << 20;
/// The sample is made of blocks of at most so many bytes.
pub(super) const SAMPLE_BLOCK: usize = 64 << 10;

/// Makes the tokenizer of a specification from all sources together.
pub(super) fn tokenizer(
    spec: &TokenizerSpec,
    config: &DataConfig,
    corpora: &[Corpus],
    watch: &mut Watch<'_>,
) -> Result<Tokenizer, DataError> {
    match spec {
        TokenizerSpec::Bytes => Ok(Tokenizer::bytes()),
        TokenizerSpec::File(path) => {
            let options = TokenizerOptions {
                split: config.split.as_deref(),
                end_of_document: config.end_of_document.as_deref(),
            };
            Tokenizer::from_file(path, options)
        }
        TokenizerSpec::Characters => {
            let (mut alphabet, mut documents) = (BTreeSet::new(), 0);
            let mut ascii = [false; 128];
            for_each(corpora, watch, &mut |text, begins| {
                for character in text.chars() {
                    match ascii.get_mut(character as usize) {
                        Some(seen) => *seen = true,
                        None => drop(alphabet.insert(character)),
                    }
                }
                documents += u64::from(begins);
            })?;
            let seen = (0..128u8).filter(|&byte| ascii[byte as usize]).map(char::from);
            Ok(Tokenizer::characters(alphabet.into_iter().chain(seen), documents > 1))
        }
        TokenizerSpec::Bpe(size) => {
            let sample = sample(corpora, SAMPLE_BYTES, watch)?;
            let total = corpora.iter().map(|corpus| corpus.bytes).sum();
            Tokenizer::train_bpe(*size, &sample, config.end_of_document.as_deref(), &mut || {
                watch.tell(Stage::Tokenizer, total, total)
            })
        }
    }
}

/// Visits all text in order.
fn for_each(
    corpora: &[Corpus],
    watch: &mut Watch<'_>,
    visit: &mut dyn FnMut(&str, bool),
) -> Result<(), DataError> {
    let total: u64 = corpora.iter().map(|corpus| corpus.bytes).sum();
    let mut done = 0;
    for corpus in corpora {
        let passed_over = corpus.for_each(&mut |text, begins| {
            visit(text, begins);
            done += text.len() as u64;
            watch.tell(Stage::Tokenizer, done, total)
        })?;
        corpus.check_bad(&passed_over, true)?;
    }
    Ok(())
}

/// Blocks of the text, about `bytes` in all, chosen by their number alone.
pub(super) fn sample(
    corpora: &[Corpus],
    bytes: u64,
    watch: &mut Watch<'_>,
) -> Result<Vec<String>, DataError> {
    let total: u64 = corpora.iter().map(|corpus| corpus.bytes).sum();
    let mut blocks = Vec::new();
    let mut number = 0;
    for_each(corpora, watch, &mut |text, _| {
        let mut rest = text;
        while !rest.is_empty() {
            let (block, after) = rest.split_at(rest.floor_char_boundary(SAMPLE_BLOCK));
            // Keeps the share bytes / total of all numbers; all of a small corpus.
            let share = u128::from(mix(number)) * u128::from(total);
            if share >> 64 < u128::from(bytes) {
                blocks.push(block.to_owned());
            }
            number += 1;
            rest = after;
        }
    })?;
    Ok(blocks)
}
