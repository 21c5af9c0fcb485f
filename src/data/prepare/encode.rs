//! Encodes a corpus on all cores, in document order.
//!
//! Duty: the tokens of every part, in the order of the parts: a shard of everything, before it is
//! split. Prohibition: no result depends on the number of threads.

use std::path::Path;

use super::{Stage, Watch};
use crate::data::error::DataError;
use crate::data::ordered::Ordered;
use crate::data::shard::{Shard, ShardWriter};
use crate::data::source::parts::Part;
use crate::data::source::{Corpus, PartCount};
use crate::data::tokenize::{Encoder, Tokenizer};

/// All tokens, in order.
pub(super) struct Encoded {
    pub(super) shard: Shard,
    /// UTF-8 bytes of each document's text.
    pub(super) text_bytes: Vec<u64>,
    /// Records that gave no document.
    pub(super) passed_over: PartCount,
}

impl Encoded {
    /// Tokens of each document.
    pub(super) fn lengths(&self) -> Result<Vec<u64>, DataError> {
        let documents = self.shard.documents();
        let end = |document| match document < documents {
            true => self.shard.document_start(document),
            false => Ok(self.shard.tokens()),
        };
        (0..documents).map(|document| Ok(end(document + 1)? - end(document)?)).collect()
    }
}

/// Encodes every document into a shard at `spool`.
pub(super) fn encode(
    corpus: &Corpus,
    tokenizer: &Tokenizer,
    spool: &Path,
    threads: usize,
    watch: &mut Watch<'_>,
) -> Result<Encoded, DataError> {
    let mut written = Written {
        writer: ShardWriter::create(spool, tokenizer.vocabulary(), tokenizer.digest())?,
        text_bytes: Vec::new(),
        passed_over: PartCount::default(),
    };
    let cut = |text: &str| tokenizer.last_cut(text);
    let worker = || {
        let mut encoder = tokenizer.encoder();
        move |part: &Part| encode_part(corpus, &mut encoder, part)
    };
    Ordered { corpus, cut: &cut, threads, skip: 0 }.run(&worker, &mut |tokens, done| {
        if let Some(tokens) = tokens {
            written.write(&tokens)?;
            corpus.check_bad(&written.passed_over, false)?;
        }
        watch.tell(Stage::Encode, done, corpus.bytes)
    })?;
    let Written { writer, text_bytes, passed_over } = written;
    corpus.check_bad(&passed_over, true)?;
    writer.finish()?;
    Ok(Encoded { shard: Shard::open(spool)?, text_bytes, passed_over })
}

/// The tokens of a part.
struct Tokens {
    tokens: Vec<u32>,
    /// Index of the first token and UTF-8 bytes of each document that begins in the part.
    documents: Vec<(usize, u64)>,
    /// UTF-8 bytes of the document that began before.
    continued_bytes: u64,
    passed_over: PartCount,
}

fn encode_part(
    corpus: &Corpus,
    encoder: &mut Encoder<'_>,
    part: &Part,
) -> Result<Tokens, DataError> {
    let end = encoder.tokenizer().end_of_document();
    let mut tokens = Vec::with_capacity(part.text.len() / 3);
    let (mut documents, mut continued_bytes) = (Vec::new(), 0);
    let passed_over = corpus.documents(part, &mut |piece| {
        match piece.begins {
            true => documents.push((tokens.len(), piece.text.len() as u64)),
            false => continued_bytes += piece.text.len() as u64,
        }
        encoder.encode(piece.text, &mut tokens)?;
        tokens.extend(end.filter(|_| piece.ends));
        Ok(())
    })?;
    Ok(Tokens { tokens, documents, continued_bytes, passed_over })
}

struct Written {
    writer: ShardWriter,
    text_bytes: Vec<u64>,
    passed_over: PartCount,
}

impl Written {
    fn write(&mut self, part: &Tokens) -> Result<(), DataError> {
        if let Some(last) = self.text_bytes.last_mut() {
            *last += part.continued_bytes;
        }
        let mut from = 0;
        for &(start, bytes) in &part.documents {
            self.writer.push(&part.tokens[from..start])?;
            self.writer.begin_document();
            self.text_bytes.push(bytes);
            from = start;
        }
        self.passed_over.add(&part.passed_over);
        self.writer.push(&part.tokens[from..])
    }
}

#[cfg(test)]
mod tests;
