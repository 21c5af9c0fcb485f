//! Several shards as one sequence of tokens.
//!
//! Duty: reads across shard borders, finds document starts. Ownership: the open shards.
//! A stream that was opened with a token begins with it: what stands before the first document, as
//! the end of each document stands before the next. Prohibition: no order and no cursor; every read
//! says where.

use std::path::PathBuf;

use super::error::DataError;
use super::shard::{Shard, Token};

/// The concatenation of shards, in the given order.
pub struct TokenStream {
    shards: Vec<Shard>,
    /// Stream position of each shard's first token, and of the end: one more than shards.
    firsts: Vec<u64>,
    documents: u64,
    /// Stands at position 0 if the first shard begins behind it.
    opener: u32,
}

impl TokenStream {
    /// Opens every shard; their headers are checked now, their payload when it is read.
    ///
    /// # Errors
    /// As [`Shard::open`], and [`DataError::Shard`] if two shards come from different tokenizers.
    pub fn open(paths: &[PathBuf]) -> Result<Self, DataError> {
        let mut stream = Self { shards: Vec::new(), firsts: vec![0], documents: 0, opener: 0 };
        for path in paths {
            let shard = Shard::open(path)?.stepping_aside();
            if stream.shards.first().is_some_and(|one| one.tokenizer() != shard.tokenizer()) {
                return Err(DataError::Shard {
                    path: path.clone(),
                    reason: "it was made by another tokenizer than the shards before it".to_owned(),
                });
            }
            stream.firsts.push(stream.len() + shard.tokens());
            stream.documents += shard.documents();
            stream.shards.push(shard);
        }
        Ok(stream)
    }

    /// The same behind one more token, unless it begins inside a document.
    ///
    /// # Errors
    /// [`DataError::Chunk`] if the bytes are damaged.
    pub fn opened_by(mut self, opener: u32) -> Result<Self, DataError> {
        if self.documents_before(1)? > 0 {
            self.firsts.iter_mut().for_each(|first| *first += 1);
            self.opener = opener;
        }
        Ok(self)
    }

    /// Number of tokens.
    pub fn len(&self) -> u64 {
        self.firsts[self.shards.len()]
    }

    /// True if there is no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of documents that begin in the stream.
    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// Checks every byte of every shard.
    ///
    /// # Errors
    /// [`DataError::Chunk`] for the first damaged chunk.
    pub fn verify(&self) -> Result<(), DataError> {
        self.shards.iter().try_for_each(Shard::verify)
    }

    /// Copies the tokens from number `start` on into `out`. Allocates nothing.
    ///
    /// # Errors
    /// [`DataError::Chunk`] if the bytes are damaged, [`DataError::OutOfRange`].
    pub fn read<T: Token>(&self, start: u64, out: &mut [T]) -> Result<(), DataError> {
        self.check_range(start, out.len() as u64)?;
        let mut at = start;
        let mut rest = out;
        if at < self.firsts[0] && !rest.is_empty() {
            rest[0] = T::from_u32(self.opener);
            (rest, at) = (&mut rest[1..], at + 1);
        }
        while !rest.is_empty() {
            let number = self.shard_of(at);
            let count = (self.firsts[number + 1] - at).min(rest.len() as u64) as usize;
            let (now, later) = rest.split_at_mut(count);
            self.shards[number].read(at - self.firsts[number], now)?;
            at += count as u64;
            rest = later;
        }
        Ok(())
    }

    /// How many documents begin in `start + 1 ..= start + length`: the borders that a window
    /// of `length` tokens and its last label cross.
    ///
    /// # Errors
    /// [`DataError::Chunk`] if the bytes are damaged.
    pub fn borders(&self, start: u64, length: u64) -> Result<u64, DataError> {
        let before = self.documents_before(start + 1)?;
        Ok(self.documents_before(start + length + 1)? - before)
    }

    /// Calls `visit` with every position in `start + 1 ..= start + length` at which a document
    /// begins, ascending.
    ///
    /// # Errors
    /// [`DataError::Chunk`] if the bytes are damaged.
    pub fn for_each_border(
        &self,
        start: u64,
        length: u64,
        mut visit: impl FnMut(u64),
    ) -> Result<(), DataError> {
        let end = start + length;
        for (shard, &first) in self.shards.iter().zip(&self.firsts) {
            if first > end || first + shard.tokens() <= start + 1 {
                continue;
            }
            let mut document = shard.documents_before((start + 1).saturating_sub(first))?;
            while document < shard.documents() {
                let border = first + shard.document_start(document)?;
                if border > end {
                    break;
                }
                visit(border);
                document += 1;
            }
        }
        Ok(())
    }

    pub(super) fn check_range(&self, start: u64, count: u64) -> Result<(), DataError> {
        let end = start.saturating_add(count);
        if end > self.len() {
            return Err(DataError::OutOfRange { start, end, tokens: self.len() });
        }
        Ok(())
    }

    /// The shard that holds token number `at`, which exists.
    fn shard_of(&self, at: u64) -> usize {
        // Empty shards begin where the next one does: the last one that begins early enough.
        self.firsts[..self.shards.len()].partition_point(|&first| first <= at) - 1
    }

    /// Documents that begin before stream position `token`.
    fn documents_before(&self, token: u64) -> Result<u64, DataError> {
        let mut count = 0;
        for (shard, &first) in self.shards.iter().zip(&self.firsts) {
            if first + shard.tokens() <= token {
                count += shard.documents();
            } else {
                return Ok(count + shard.documents_before(token.saturating_sub(first))?);
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
pub(super) mod tests;
