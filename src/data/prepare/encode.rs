//! Encodes a corpus on all cores, in document order.
//!
//! Duty: one thread reads parts, others turn them into tokens, the caller's thread writes these
//! in the order of the parts. The result is a shard of everything, before it is split.
//! Limits: so many parts at once, whose memory is used again. Prohibition: no result depends on
//! the number of threads.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{Stage, Watch};
use crate::data::error::DataError;
use crate::data::shard::{Shard, ShardWriter};
use crate::data::source::parts::Part;
use crate::data::source::{Corpus, PartCount};
use crate::data::tokenize::{Encoder, Tokenizer};

/// More threads than this only wait for the reader.
const THREADS_MAX: usize = 64;
/// Parts for each encoding thread: one in work, one ready.
const PARTS_PER_THREAD: usize = 2;
/// Parts for the reader and the writer.
const PARTS_BESIDES: usize = 2;
/// Between two questions whether to go on while nothing happens.
const POLL: Duration = Duration::from_millis(100);

/// All tokens, in order.
pub(super) struct Encoded {
    pub(super) shard: Shard,
    /// UTF-8 bytes of each document's text.
    pub(super) text_bytes: Vec<u64>,
    /// JSON lines that gave no document.
    pub(super) passed_over: PartCount,
}

/// Threads to encode with on this machine.
pub(super) fn threads() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get().min(THREADS_MAX))
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
    let slots = threads * PARTS_PER_THREAD + PARTS_BESIDES;
    thread::scope(|scope| {
        let (give_back, memory) = bounded(slots);
        for _ in 0..slots {
            // The channel holds them all.
            let _held = give_back.send(Part::default());
        }
        let (work, parts) = bounded(slots);
        let (done, results) = bounded(slots + 1);
        for _ in 0..threads {
            let (parts, done) = (parts.clone(), done.clone());
            scope.spawn(move || encode_parts(corpus, tokenizer.encoder(), &parts, &done));
        }
        drop(parts);
        scope.spawn(move || read_parts(corpus, tokenizer, &memory, &work, &done));
        // Whatever ends this loop early closes the channels, and that ends the threads.
        written.write_all(&results, &give_back, corpus, watch)
    })?;
    let Written { writer, text_bytes, passed_over } = written;
    writer.finish()?;
    Ok(Encoded { shard: Shard::open(spool)?, text_bytes, passed_over })
}

/// The place of a part in the corpus, and what became of it.
type Result1 = (u64, thread::Result<Result<Tokens, DataError>>);

/// The tokens of a part.
struct Tokens {
    tokens: Vec<u32>,
    /// Index of the first token and UTF-8 bytes of each document that begins in the part.
    documents: Vec<(usize, u64)>,
    /// UTF-8 bytes of the document that began before.
    continued_bytes: u64,
    passed_over: PartCount,
    /// The part, whose memory is used again.
    part: Part,
}

fn read_parts(
    corpus: &Corpus,
    tokenizer: &Tokenizer,
    memory: &Receiver<Part>,
    work: &Sender<(u64, Part)>,
    done: &Sender<Result1>,
) {
    let mut number = 0;
    let cut = |text: &str| tokenizer.last_cut(text);
    // A closed channel means that the writer has ended with an error of its own.
    let read = corpus.for_each_part(
        &cut,
        &mut || memory.recv().map_err(|_| DataError::Interrupted),
        &mut |part| {
            work.send((number, part)).map_err(|_| DataError::Interrupted)?;
            number += 1;
            Ok(())
        },
    );
    if let Err(error) = read {
        let _nobody_listens = done.send((number, Ok(Err(error))));
    }
}

fn encode_parts(
    corpus: &Corpus,
    mut encoder: Encoder<'_>,
    parts: &Receiver<(u64, Part)>,
    done: &Sender<Result1>,
) {
    for (number, part) in parts {
        let work = AssertUnwindSafe(|| encode_part(corpus, &mut encoder, part));
        // A panic is carried to the writer, which else would wait for this part.
        let result = catch_unwind(work);
        if done.send((number, result)).is_err() {
            return;
        }
    }
}

fn encode_part(
    corpus: &Corpus,
    encoder: &mut Encoder<'_>,
    part: Part,
) -> Result<Tokens, DataError> {
    let end = encoder.tokenizer().end_of_document();
    let mut tokens = Vec::with_capacity(part.text.len() / 3);
    let (mut documents, mut continued_bytes) = (Vec::new(), 0);
    let passed_over = corpus.documents(&part, &mut |text, begins, ends| {
        match begins {
            true => documents.push((tokens.len(), text.len() as u64)),
            false => continued_bytes += text.len() as u64,
        }
        encoder.encode(text, &mut tokens)?;
        tokens.extend(end.filter(|_| ends));
        Ok(())
    })?;
    Ok(Tokens { tokens, documents, continued_bytes, passed_over, part })
}

struct Written {
    writer: ShardWriter,
    text_bytes: Vec<u64>,
    passed_over: PartCount,
}

impl Written {
    /// Writes parts in their order until there are no more.
    fn write_all(
        &mut self,
        results: &Receiver<Result1>,
        give_back: &Sender<Part>,
        corpus: &Corpus,
        watch: &mut Watch<'_>,
    ) -> Result<(), DataError> {
        let mut early = BTreeMap::new();
        let (mut next, mut done) = (0, 0);
        loop {
            match results.recv_timeout(POLL) {
                Ok((number, result)) => {
                    early.insert(number, result);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            while let Some(result) = early.remove(&next) {
                let mut tokens = result.unwrap_or_else(|panic| resume_unwind(panic))?;
                self.write(&tokens)?;
                next += 1;
                done += tokens.part.text.len() as u64;
                tokens.part.text.clear();
                let _reader_is_done = give_back.send(tokens.part);
            }
            watch.tell(Stage::Encode, done, corpus.bytes)?;
        }
    }

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
