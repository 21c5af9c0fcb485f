//! A shard: a file of tokens that is written once, mapped into memory, and checked.
//!
//! Duty: the format, its writer and its reader. Little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 4096 | header: magic, version, token width, counts, digests, checksums |
//! | tokens x width | payload: the tokens, u16 or u32, padded with zeros to 8 bytes |
//! | documents x 8 | payload: where each document begins, as an index into the tokens, ascending |
//! | chunks x 4 | crc32c of each 1 MiB of the payload |
//!
//! The header's own checksum, the length of the file and the checksum of the table are
//! verified when a shard is opened, a chunk of the payload when it is first touched.
//! Ownership: a shard never changes after the writer renames it into place; readers rely on it.
//! Prohibition: knows no text, no windows, no order.

use std::path::Path;

use serde::Serialize;

use super::error::DataError;
use super::prepare::of_shard;

mod layout;
mod reader;
mod writer;

pub use layout::TokenWidth;
pub use reader::{Shard, Token};
pub use writer::ShardWriter;
pub(super) use writer::sync_folder_of;

/// The extension of shard files.
pub const SHARD_EXTENSION: &str = "oct";

/// What `octet inspect` shows of a shard.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShardSummary {
    /// The file.
    pub path: String,
    /// Version of the format.
    pub version: u32,
    /// Bytes per token: 2 or 4.
    pub token_bytes: u32,
    /// Number of tokens.
    pub tokens: u64,
    /// Documents that begin in this shard.
    pub documents: u64,
    /// Digest of the tokenizer, in hexadecimal.
    pub tokenizer: String,
    /// blake3 of the tokens as stored, in hexadecimal.
    pub contents: String,
    /// Length of the file.
    pub file_bytes: u64,
    /// Checked chunks of 1 MiB.
    pub chunks: u64,
    /// The first tokens.
    pub first_tokens: Vec<u32>,
    /// What `prepared.json` beside the shard says: the source it belongs to, empty for
    /// `data.text`.
    pub source: Option<String>,
    /// Text of the first tokens, if the tokenizer lies beside the shard.
    pub first_text: Option<String>,
}

/// Tokens that a summary shows.
const FIRST_TOKENS: u64 = 32;

/// Summary of the shard at `path`, of whose payload only the first tokens are checked; with what
/// lies beside it.
///
/// # Errors
/// As [`Shard::open`] and [`Shard::read`].
pub fn inspect(path: &Path) -> Result<ShardSummary, DataError> {
    let shard = Shard::open(path)?;
    let mut first_tokens = vec![0; shard.tokens().min(FIRST_TOKENS) as usize];
    shard.read(0, &mut first_tokens)?;
    let beside = of_shard(path);
    let same = beside.as_ref().filter(|(_, one)| one.digest() == shard.tokenizer());
    let first_text = same.map(|(_, tokenizer)| tokenizer.decode(&first_tokens));
    let source = beside.map(|(source, _)| source);
    Ok(ShardSummary { first_tokens, first_text, source, ..shard.summary() })
}

#[cfg(test)]
mod tests;
