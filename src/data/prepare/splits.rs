//! Cuts the tokens of a source into training and validation.
//!
//! Duty: the tail of the stream is held out; both parts become shards of the final names, and
//! the bytes of text in each are counted. Prohibition: changes no token.

use std::ops::Range;

use super::encode::Encoded;
use super::place::Place;
use super::record::SourceRecord;
use super::{Counts, Stage, Watch};
use crate::data::config::DataConfig;
use crate::data::error::DataError;
use crate::data::shard::{SHARD_EXTENSION, Shard, ShardWriter};
use crate::data::source::Skipped;
use crate::data::tokenize::Tokenizer;

/// Tokens of a full shard.
const SHARD_TOKENS: u64 = 1 << 27;
/// Tokens that are copied at once.
const COPY_TOKENS: u64 = 1 << 18;

/// A source that is encoded.
pub(super) struct Splits<'a> {
    pub(super) config: &'a DataConfig,
    /// Its name; empty for `data.text`.
    pub(super) name: &'a str,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) encoded: &'a Encoded,
}

/// Writes the shards of a source; files and what was passed over are not counted here.
pub(super) fn write(
    splits: &Splits<'_>,
    place: &mut Place,
    watch: &mut Watch<'_>,
) -> Result<SourceRecord, DataError> {
    let Splits { config, tokenizer, encoded, .. } = *splits;
    let tokens = encoded.shard.tokens();
    let cut = ((1.0 - config.validation_fraction) * tokens as f64).floor() as u64;
    let validation_bytes = bytes_behind(encoded, cut, tokenizer)?;
    let bytes: u64 = encoded.text_bytes.iter().sum();
    Ok(SourceRecord {
        name: splits.name.to_owned(),
        train: splits.write("train", 0..cut, place, watch)?,
        validation: splits.write("validation", cut..tokens, place, watch)?,
        counts: Counts {
            train_tokens: cut,
            validation_tokens: tokens - cut,
            train_bytes: bytes - validation_bytes,
            validation_bytes,
            documents: encoded.text_bytes.len() as u64,
            files: 0,
            skipped: Skipped::default(),
        },
    })
}

impl Splits<'_> {
    /// Returns the names of the shards.
    fn write(
        &self,
        split: &str,
        range: Range<u64>,
        place: &mut Place,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<String>, DataError> {
        let mut names = Vec::new();
        let mut start = range.start;
        let dash = if self.name.is_empty() { "" } else { "-" };
        while start < range.end {
            let end = (start + SHARD_TOKENS).min(range.end);
            let number = names.len();
            let name = format!("{}{dash}{split}-{number:05}.{SHARD_EXTENSION}", self.name);
            self.write_shard(&name, start..end, place, watch)?;
            names.push(name);
            start = end;
        }
        Ok(names)
    }

    fn write_shard(
        &self,
        name: &str,
        range: Range<u64>,
        place: &Place,
        watch: &mut Watch<'_>,
    ) -> Result<(), DataError> {
        let source: &Shard = &self.encoded.shard;
        let (path, tokenizer) = (place.file(name), self.tokenizer);
        let mut writer = ShardWriter::create(&path, tokenizer.vocabulary(), tokenizer.digest())?;
        let mut document = source.documents_before(range.start)?;
        let mut at = range.start;
        let mut buffer = Vec::new();
        while at < range.end {
            // The whole documents of a block are copied at once.
            let end = range.end.min(at + COPY_TOKENS);
            buffer.resize((end - at) as usize, 0u32);
            source.read(at, &mut buffer)?;
            let mut from = at;
            while document < source.documents() {
                let start = source.document_start(document)?;
                if start >= end {
                    break;
                }
                writer.push(&buffer[(from - at) as usize..(start - at) as usize])?;
                writer.begin_document();
                (from, document) = (start, document + 1);
            }
            writer.push(&buffer[(from - at) as usize..])?;
            at = end;
            watch.tell(Stage::Write, at, source.tokens())?;
        }
        writer.finish()?;
        Ok(())
    }
}

/// Bytes of text behind token number `cut`, which may lie inside a document.
fn bytes_behind(encoded: &Encoded, cut: u64, tokenizer: &Tokenizer) -> Result<u64, DataError> {
    let shard = &encoded.shard;
    let whole = shard.documents_before(cut)?;
    let mut bytes: u64 = encoded.text_bytes[whole as usize..].iter().sum();
    let end = if whole < shard.documents() { shard.document_start(whole)? } else { shard.tokens() };
    if cut < end {
        // The document before is cut: `whole` is at least 1, since the first begins at 0.
        let start = shard.document_start(whole - 1)?;
        bytes += if tokenizer.is_byte_exact() {
            let mut tail = vec![0u32; (end - cut) as usize];
            shard.read(cut, &mut tail)?;
            tokenizer.decode_bytes(&tail).len() as u64
        } else {
            let text = u128::from(encoded.text_bytes[whole as usize - 1]);
            (text * u128::from(end - cut) / u128::from(end - start)) as u64
        };
    }
    Ok(bytes)
}
