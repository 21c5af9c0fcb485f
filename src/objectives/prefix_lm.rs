//! Prefix language modelling (Raffel et al., arXiv:1910.10683, section 3.2.3): a prefix of every
//! document is seen both ways, and the rest of it is predicted from left to right.
//!
//! Inputs and results as of `next_token`, and `extents i32[N]`: every token of a prefix sees all of
//! it, those behind it what lies before them. A document of n tokens in its window has a prefix of
//! 1 to n of them, each length as likely as any other. Tokens of a prefix are no targets, but for
//! the first: nothing comes before it. A prefix of one token leaves the next-token objective, so a
//! model goes on with a text as one of that objective does.

use std::ops::Range;

use octet_actors::contract::Record;
use octet_kernels::dtype::DType;
use octet_kernels::error::Result;
use octet_kernels::graph::{Graph, Program, Tensor};
use octet_kernels::random::RandomStream;
use serde::{Deserialize, Serialize};

use super::next_token::{NextToken, Successors, fill_bytes, predicts};
use super::{BatchShape, Counts, Inputs, Objective, Source, Writes};
use crate::composition::{Builder, Built};
use crate::config::error::Invalid;
use crate::data::{DataError, IGNORED, WindowRows};
use crate::models::{BIDIRECTIONAL, CAUSAL, Extras, Part, Sight};

#[cfg(test)]
mod tests;

/// What follows a prefix that is seen both ways.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrefixLm {
    /// Rows whose logits are held at a time; part of a run's identity. At least 1.
    pub chunk_rows: usize,
}

impl Default for PrefixLm {
    fn default() -> Self {
        Self { chunk_rows: NextToken::default().chunk_rows }
    }
}

impl PrefixLm {
    fn rest(&self) -> NextToken {
        NextToken { chunk_rows: self.chunk_rows, ..NextToken::default() }
    }

    fn loss(
        &self,
        g: &mut Graph<'_>,
        model: &Part,
        shape: BatchShape,
        extras: &mut Extras,
        training: bool,
    ) -> Result<Tensor> {
        let extents = g.input("extents", &[shape.tokens()], DType::I32);
        self.rest().loss_seen(g, model, (shape, Sight::Extents(extents)), extras, training)
    }
}

impl Objective for PrefixLm {
    fn validate(&self) -> std::result::Result<(), Invalid> {
        self.rest().validate()
    }

    fn writes(&self) -> Option<Writes> {
        Some(Writes::default())
    }

    fn build(&self, track: &mut Builder<'_>) -> Result<Built> {
        // Of the pairs that only sight both ways has, a third lies in prefixes: the mean of p².
        let pairs = CAUSAL + (BIDIRECTIONAL - CAUSAL) / 3.0;
        Ok(predicts(self, Self::loss, pairs, track))
    }

    fn inputs(&self, source: Source) -> std::result::Result<Box<dyn Inputs>, DataError> {
        let noise = source.noise("prefixes");
        Ok(Box::new(Prefixes { noise, whole: Successors { source, losses: 1 } }))
    }
}

/// Windows whose documents are split.
struct Prefixes {
    noise: RandomStream,
    whole: Successors,
}

/// Splits the documents of a window: takes the targets out of their prefixes and says how far every
/// token sees.
fn split(
    (noise, sample): (&RandomStream, u64),
    segments: &[i32],
    labels: &mut [i32],
    extents: &mut [i32],
) {
    let mut start = 0;
    for document in segments.chunk_by(|a, b| a == b) {
        let (first, tokens) = (start, document.len());
        start += tokens;
        let word = noise.word(0, sample, first as u64);
        let prefix = first + 1 + ((u64::from(word) * tokens as u64) >> 32) as usize;
        // The last token of a prefix says what follows it.
        labels[first..prefix - 1].fill(IGNORED);
        for (at, extent) in extents[first..start].iter_mut().enumerate() {
            *extent = prefix.max(first + at + 1) as i32;
        }
    }
}

impl Inputs for Prefixes {
    fn targets(&self, sample: u64) -> std::result::Result<Counts, DataError> {
        let Source { samples, sequence_length, .. } = &self.whole.source;
        let mut rows = vec![0; 5 * sequence_length];
        let mut parts = rows.chunks_exact_mut(*sequence_length);
        let mut part = || parts.next().expect("there are five");
        let [tokens, labels, segments, positions, extents] =
            [part(), part(), part(), part(), part()];
        let window =
            WindowRows { tokens, labels: &mut *labels, segments: &mut *segments, positions };
        samples.fill(sample, window)?;
        split((&self.noise, sample), segments, labels, extents);
        let targets = labels.iter().filter(|&&label| label != IGNORED).count();
        Ok([targets as u64, 0, 0, 0])
    }

    fn fill(
        &self,
        samples: Range<u64>,
        program: &Program,
        record: &mut Record<'_>,
    ) -> std::result::Result<(), DataError> {
        self.whole.fill(samples.clone(), program, record)?;
        let Source { sequence_length: length, token_bytes, .. } = &self.whole.source;
        let names = ["segments", "labels", "extents"];
        let [segments, labels, extents] = record.fields::<i32, 3>(program, names);
        extents.fill(0);
        for (row, sample) in samples.enumerate() {
            let part = row * length..(row + 1) * length;
            let (labels, extents) = (&mut labels[part.clone()], &mut extents[part.clone()]);
            split((&self.noise, sample), &segments[part], labels, extents);
        }
        fill_bytes(token_bytes, program, record);
        Ok(())
    }
}
