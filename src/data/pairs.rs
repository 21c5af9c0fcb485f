//! Pairs of texts, of which the second follows the first or comes from another document.
//!
//! Duty: the sampling of BERT's next-sentence task (Devlin et al., arXiv:1810.04805, and its
//! `create_pretraining_data.py`) as a pure function of the sample's number. Documents are cut into
//! chunks; a chunk is cut in two at a random place, and with even chances the second part is what
//! stands there or a piece of as many tokens of a random other document. A tenth of the samples is
//! cut shorter. A part is any tokens that follow each other: shards know documents, not sentences.
//! What is left of a chunk is left out in that epoch. Limits: 16 bytes a chunk. Prohibition: reads
//! no token to place a pair.

use octet_kernels::random::RandomStream;

use super::error::DataError;
use super::stream::TokenStream;

#[cfg(test)]
mod tests;

/// One in so many samples is cut shorter.
const SHORT_ONE_IN: u64 = 10;
/// Random documents that are tried before the next other one is taken.
const TRIES: u64 = 8;

/// The chunks of a stream.
#[derive(Clone, Debug)]
pub struct Pairs {
    chunks: Vec<Chunk>,
}

/// Tokens of one document.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    start: u64,
    tokens: u32,
    document: u32,
}

/// Where the two parts of a sample stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Position in the stream, and how many tokens.
    pub first: (u64, usize),
    /// The same of the second part.
    pub second: (u64, usize),
    /// It is what follows the first one in its document.
    pub follows: bool,
}

impl Pair {
    /// Tokens of both.
    pub fn tokens(&self) -> usize {
        self.first.1 + self.second.1
    }
}

impl Pairs {
    /// Cuts the documents of a stream into chunks of at most `most` tokens. The last token of each
    /// is left out if that `ends` it. Documents and rests of less than two tokens give none.
    ///
    /// # Errors
    /// [`DataError::Chunk`] if a shard is damaged, [`DataError::Config`] without two documents.
    pub fn new(stream: &TokenStream, most: usize, ends: bool) -> Result<Self, DataError> {
        let (mut chunks, mut start, mut document) = (Vec::new(), 0, 0u32);
        let most = most as u64;
        let mut cut = |end: u64| {
            let last = if ends { end.saturating_sub(1) } else { end };
            while start + 1 < last {
                let tokens = (last - start).min(most) as u32;
                chunks.push(Chunk { start, tokens, document });
                start += u64::from(tokens);
            }
            (start, document) = (end, document.saturating_add(1));
        };
        let tokens = stream.len();
        if tokens > 0 {
            stream.for_each_border(0, tokens - 1, &mut cut)?;
            cut(tokens);
        }
        let of_one = chunks.first().is_none_or(|first: &Chunk| {
            chunks.iter().all(|chunk| chunk.document == first.document)
        });
        if most < 2 || of_one {
            let problem = "expected at least 2 documents of at least 2 tokens to make pairs of, \
                           and room for them in a sequence";
            return Err(DataError::Config { key: "data.text", problem: problem.to_owned() });
        }
        Ok(Self { chunks })
    }

    /// Number of chunks.
    pub fn chunks(&self) -> u64 {
        self.chunks.len() as u64
    }

    /// The pair that sample `sample`, whose turn it is for chunk `number`, makes of it.
    pub fn place(&self, number: u64, sample: u64, noise: &RandomStream) -> Pair {
        let mut at = 0;
        let mut below = |bound: u64| {
            let word = noise.word(0, sample, at);
            at += 1;
            (u64::from(word) * bound) >> 32
        };
        let chunk = self.chunks[number as usize];
        let whole = u64::from(chunk.tokens);
        let kept = match below(SHORT_ONE_IN) {
            0 => 2 + below(whole - 1),
            _ => whole,
        };
        let first = 1 + below(kept - 1);
        let wanted = kept - first;
        if below(2) == 0 {
            let second = (chunk.start + first, wanted as usize);
            return Pair { first: (chunk.start, first as usize), second, follows: true };
        }
        let mut other = self.chunks[below(self.chunks()) as usize];
        for _ in 0..TRIES {
            if other.document != chunk.document {
                break;
            }
            other = self.chunks[below(self.chunks()) as usize];
        }
        if other.document == chunk.document {
            let elsewhere = |other: &&Chunk| other.document != chunk.document;
            let (before, after) = self.chunks.split_at(number as usize);
            let next = after.iter().chain(before).find(elsewhere);
            other = *next.expect("there are two documents");
        }
        let offset = below(u64::from(other.tokens));
        let second = wanted.min(u64::from(other.tokens) - offset);
        Pair {
            first: (chunk.start, first as usize),
            second: (other.start + offset, second as usize),
            follows: false,
        }
    }
}
