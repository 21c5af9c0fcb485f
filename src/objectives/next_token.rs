//! The next-token objective: cross-entropy of every token's successor in its document.
//!
//! Inputs, N rows of packed sequences: `tokens i32[N]`, `labels i32[N]` (negative: no target),
//! `positions i32[N]`, `segments i32[N]`, for training `scale f32[]`, one over the targets of the
//! whole step, and for evaluation `bytes i32[N]`, UTF-8 bytes of each target's text. Results:
//! `loss` (training; the sum times the scale), `loss_sum`, `targets`, and for evaluation the sum
//! over targets with text, `text_loss_sum`, and their `bytes`.

use std::ops::Range;

use octet_actors::contract::{Reading, Record};
use octet_kernels::dtype::DType;
use octet_kernels::error::{Error, Result};
use octet_kernels::graph::{Graph, Program, Tensor};
use octet_kernels::ops::fill::Fill;
use octet_kernels::ops::integers::total;
use octet_kernels::ops::linear_cross_entropy::{
    LossOptions, linear_cross_entropy, marked_linear_cross_entropy,
};
use serde::{Deserialize, Serialize};

use super::{BatchShape, Counts, GPU_CHUNKS, Inputs, Objective, Source, Writes};
use crate::composition::{Builder, Built, HeldOutProgram, Loss, Stage};
use crate::config::error::{Invalid, require};
use crate::config::sections::expected;
use crate::data::{DataError, IGNORED, WindowRows};
use crate::models::{CAUSAL, Extras, Part, Sight, TokenBatch};

#[cfg(test)]
mod tests;

/// Every token predicts the next one of its document.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NextToken {
    /// Factor of the squared log-sum-exp of the logits, which keeps them small; 0 for none.
    pub z_loss: f64,
    /// Share of the uniform distribution in the target; 0 for none. Evaluations leave it and the
    /// z-loss out; the log of the steps shows what is trained. At least 0, below 1.
    pub label_smoothing: f64,
    /// Bound of the logits, `cap · tanh(z / cap)`, in training, evaluation and sampling (30 as in
    /// Gemma 2); by default none. Above 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit_softcap: Option<f64>,
    /// Rows whose logits are held at a time, eight times as many on a GPU. It decides where
    /// gradients are cut into sums, so it is part of a run's identity. At least 1.
    pub chunk_rows: usize,
}

impl Default for NextToken {
    fn default() -> Self {
        Self { z_loss: 0.0, label_smoothing: 0.0, logit_softcap: None, chunk_rows: 512 }
    }
}

/// What evaluations add up.
pub(super) const SUMS: [&str; 4] = ["loss_sum", "targets", "text_loss_sum", "bytes"];

impl NextToken {
    /// The sum of losses times `scale`; fetches what is summed.
    pub(super) fn loss(
        &self,
        g: &mut Graph<'_>,
        model: &Part,
        shape: BatchShape,
        extras: &mut Extras,
        training: bool,
    ) -> Result<Tensor> {
        self.loss_seen(g, model, (shape, Sight::Causal), extras, training)
    }

    /// The same where tokens see each other otherwise.
    pub(super) fn loss_seen(
        &self,
        g: &mut Graph<'_>,
        model: &Part,
        (shape, sight): (BatchShape, Sight),
        extras: &mut Extras,
        training: bool,
    ) -> Result<Tensor> {
        let mut input = |name| g.input(name, &[shape.tokens()], DType::I32);
        let (tokens, labels) = (input("tokens"), input("labels"));
        let (positions, segments) = (input("positions"), input("segments"));
        let scale = match training {
            true => g.input("scale", &[], DType::F32),
            false => g.apply_one(Fill { shape: Vec::new(), value: 1.0 }, &[])?,
        };
        let bytes = (!training).then(|| g.input("bytes", &[shape.tokens()], DType::I32));
        let batch = TokenBatch {
            tokens,
            positions,
            segments,
            types: None,
            sequence_length: shape.sequence_length,
            sight,
            training,
        };
        let hidden = model.hidden(g, &batch, extras)?;
        let head = model.head(g, hidden)?;
        let options = LossOptions {
            chunk_rows: self.chunk_rows,
            gpu_chunks: GPU_CHUNKS,
            z_loss: self.z_loss as f32,
            label_smoothing: self.label_smoothing as f32,
            softcap: self.logit_softcap.map(|cap| cap as f32),
        };
        let result = g.scoped("head", |g| {
            let Some(bytes) = bytes else {
                return linear_cross_entropy(
                    g,
                    head.rows,
                    head.weight,
                    head.bias,
                    labels,
                    scale,
                    options,
                );
            };
            if head.bias.is_some() {
                let what = "objective.kind: expected a model whose output layer has no bias";
                return Err(Error::Plan(what.to_owned()));
            }
            let rows = [head.rows, head.weight];
            let (result, text) =
                marked_linear_cross_entropy(g, rows, labels, bytes, scale, options)?;
            g.fetch("text_loss_sum", text);
            let bytes = total(g, bytes)?;
            g.fetch("bytes", bytes);
            Ok(result)
        })?;
        g.fetch("loss_sum", result.loss_sum);
        g.fetch("targets", result.targets);
        Ok(result.loss)
    }
}

/// The loss of an objective: of its settings, a model and a batch; in training or not.
type Traced<O> = fn(&O, &mut Graph<'_>, &Part, BatchShape, &mut Extras, bool) -> Result<Tensor>;

/// What an objective trains that predicts tokens of single samples, and evaluates the same way.
/// `pairs` is the share of all pairs of tokens that see each other.
pub(super) fn predicts<O: Clone + Send + Sync + 'static>(
    own: &O,
    loss: Traced<O>,
    pairs: f64,
    track: &mut Builder<'_>,
) -> Built {
    let (model, shape) = (track.model(), track.shape());
    let length = shape.sequence_length;
    let per_token = model.model().flops_per_token(length, pairs);
    let (trained, of) = (own.clone(), model.clone());
    let train = track.train(move |g, extras| loss(&trained, g, &of, shape, extras, true));
    let own = own.clone();
    let program = track.held_out(move |g, extras| loss(&own, g, &model, shape, extras, false));
    let sums = SUMS.map(str::to_owned).to_vec();
    Built {
        attempts: vec![vec![Stage::Each(train)]],
        group: 1,
        losses: vec![Loss { scale: "scale", weight: 1.0 }],
        held_out: HeldOutProgram { program, sums, reading: Reading::of_text() },
        flops_per_sample: length as f64 * per_token,
    }
}

impl Objective for NextToken {
    fn validate(&self) -> std::result::Result<(), Invalid> {
        let z_loss = || expected("a number of at least 0", self.z_loss);
        let usable = (0.0..f64::from(f32::MAX)).contains(&self.z_loss);
        require(usable, "objective.z_loss", z_loss)?;
        let smoothing = || expected("at least 0 and below 1", self.label_smoothing);
        let usable = (0.0..1.0).contains(&(self.label_smoothing as f32));
        require(usable, "objective.label_smoothing", smoothing)?;
        let cap = self.logit_softcap.unwrap_or(1.0);
        let usable = cap as f32 > 0.0 && (cap as f32).is_finite();
        require(usable, "objective.logit_softcap", || expected("a number above 0", cap))?;
        let rows = || expected("at least 1", self.chunk_rows);
        require(self.chunk_rows > 0, "objective.chunk_rows", rows)
    }

    fn writes(&self) -> Option<Writes> {
        Some(Writes { softcap: self.logit_softcap.map(|cap| cap as f32) })
    }

    fn build(&self, track: &mut Builder<'_>) -> Result<Built> {
        Ok(predicts(self, Self::loss, CAUSAL, track))
    }

    fn inputs(&self, source: Source) -> std::result::Result<Box<dyn Inputs>, DataError> {
        Ok(Box::new(Successors { source, losses: 1 }))
    }
}

/// Windows as they are.
pub(super) struct Successors {
    pub(super) source: Source,
    /// How many losses have these targets.
    pub(super) losses: usize,
}

impl Inputs for Successors {
    fn targets(&self, sample: u64) -> std::result::Result<Counts, DataError> {
        let mut counts = Counts::default();
        counts[..self.losses].fill(self.source.samples.targets(sample)?);
        Ok(counts)
    }

    fn fill(
        &self,
        samples: Range<u64>,
        program: &Program,
        record: &mut Record<'_>,
    ) -> std::result::Result<(), DataError> {
        let Source { samples: stream, sequence_length: length, token_bytes, .. } = &self.source;
        let [tokens, labels, segments, positions] =
            record.fields::<i32, 4>(program, ["tokens", "labels", "segments", "positions"]);
        let rows = (samples.end - samples.start) as usize * length;
        [&mut *tokens, &mut *segments, &mut *positions]
            .into_iter()
            .for_each(|row| row[rows..].fill(0));
        labels[rows..].fill(IGNORED);
        for (row, sample) in samples.enumerate() {
            let part = row * length..(row + 1) * length;
            let rows = WindowRows {
                tokens: &mut tokens[part.clone()],
                labels: &mut labels[part.clone()],
                segments: &mut segments[part.clone()],
                positions: &mut positions[part],
            };
            stream.fill(sample, rows)?;
        }
        fill_bytes(token_bytes, program, record);
        Ok(())
    }
}

/// Fills `bytes`, if the program asks for them, from `labels`.
pub(super) fn fill_bytes(token_bytes: &[u32], program: &Program, record: &mut Record<'_>) {
    if program.field("bytes").is_none() {
        return;
    }
    let [bytes, labels] = record.fields::<i32, 2>(program, ["bytes", "labels"]);
    for (bytes, &label) in bytes.iter_mut().zip(&*labels) {
        let token = usize::try_from(label).ok();
        *bytes = token.map_or(0, |token| token_bytes[token] as i32);
    }
}
