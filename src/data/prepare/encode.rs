//! Encodes a corpus on all cores, in document order.
//!
//! Duty: reads documents in batches; threads take them one by one; the tokens are written in
//! the order of the documents. The result is a shard of everything, before it is split.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{Progress, Stage};
use crate::data::error::DataError;
use crate::data::shard::{Shard, ShardWriter};
use crate::data::source::Corpus;
use crate::data::tokenize::{Encoder, Tokenizer};

/// Text that is encoded at once; a larger document is a batch of its own.
const BATCH_BYTES: usize = 16 << 20;
/// More threads than this only wait for the reader.
const THREADS_MAX: usize = 64;

/// All tokens, in order.
pub(super) struct Encoded {
    pub(super) shard: Shard,
    /// UTF-8 bytes of each document's text.
    pub(super) text_bytes: Vec<u64>,
    /// JSON lines without text.
    pub(super) empty: u64,
}

/// Encodes every document into a shard at `spool`.
pub(super) fn encode(
    corpus: &Corpus,
    tokenizer: &Tokenizer,
    spool: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Encoded, DataError> {
    let threads = thread::available_parallelism().map_or(1, |n| n.get().min(THREADS_MAX));
    let mut batch = Batch {
        encoders: (0..threads).map(|_| tokenizer.encoder()).collect(),
        end_of_document: tokenizer.end_of_document(),
        writer: ShardWriter::create(spool, tokenizer.vocabulary(), tokenizer.digest())?,
        texts: Vec::new(),
        bytes: 0,
        text_bytes: Vec::new(),
    };
    let mut done = 0;
    let empty = corpus.for_each(&mut |document| {
        batch.add(document.text)?;
        done += document.text.len() as u64;
        progress(Progress { stage: Stage::Encode, done, total: corpus.bytes });
        Ok(())
    })?;
    batch.flush()?;
    let Batch { writer, text_bytes, .. } = batch;
    writer.finish()?;
    Ok(Encoded { shard: Shard::open(spool)?, text_bytes, empty })
}

struct Batch<'a> {
    encoders: Vec<Encoder<'a>>,
    end_of_document: Option<u32>,
    writer: ShardWriter,
    texts: Vec<String>,
    bytes: usize,
    text_bytes: Vec<u64>,
}

impl Batch<'_> {
    fn add(&mut self, text: &str) -> Result<(), DataError> {
        if self.bytes + text.len() > BATCH_BYTES {
            self.flush()?;
        }
        self.bytes += text.len();
        self.text_bytes.push(text.len() as u64);
        self.texts.push(text.to_owned());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DataError> {
        for mut tokens in encode_all(&mut self.encoders, &self.texts)? {
            tokens.extend(self.end_of_document);
            self.writer.begin_document();
            self.writer.push(&tokens)?;
        }
        self.texts.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// The tokens of each text, in the order of the texts.
fn encode_all(encoders: &mut [Encoder<'_>], texts: &[String]) -> Result<Vec<Vec<u32>>, DataError> {
    let next = AtomicUsize::new(0);
    let work = |encoder: &mut Encoder<'_>| -> Result<Vec<(usize, Vec<u32>)>, DataError> {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(text) = texts.get(number) else { return Ok(done) };
            let mut tokens = Vec::with_capacity(text.len() / 3);
            encoder.encode(text, &mut tokens)?;
            done.push((number, tokens));
        }
    };
    let mut all = vec![Vec::new(); texts.len()];
    let shares = thread::scope(|scope| {
        let threads: Vec<_> =
            encoders.iter_mut().map(|encoder| scope.spawn(|| work(encoder))).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.collect::<Result<Vec<_>, _>>()
    })?;
    for (number, tokens) in shares.into_iter().flatten() {
        all[number] = tokens;
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
