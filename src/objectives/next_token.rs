//! The next-token objective: cross-entropy of every token's successor in its document.
//!
//! Inputs, N rows of packed sequences: `tokens i32[N]`, `labels i32[N]` (negative: no target),
//! `positions i32[N]`, `segments i32[N]`, for training `scale f32[]`, one over the targets of the
//! whole step, and for evaluation `bytes i32[N]`, UTF-8 bytes of each target's text. Results: `loss`
//! (training; the sum times the scale), `loss_sum`, `targets`, and for evaluation the sum over
//! targets with text, `text_loss_sum`, and their `bytes`.

use octet_kernels::dtype::DType;
use octet_kernels::error::Result;
use octet_kernels::graph::{Goal, Graph, Tensor};
use octet_kernels::ops::fill::Fill;
use octet_kernels::ops::integers::total;
use octet_kernels::ops::linear_cross_entropy::{
    LossOptions, linear_cross_entropy, marked_linear_cross_entropy,
};
use serde::{Deserialize, Serialize};

use super::{BatchShape, Objective};
use crate::config::error::{Invalid, require};
use crate::config::sections::expected;
use crate::models::{LanguageModel, TokenBatch};

#[cfg(test)]
mod tests;

/// Every token predicts the next one of its document.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NextToken {
    /// Factor of the squared log-sum-exp of the logits, which keeps them small; 0 for none.
    pub z_loss: f64,
    /// Share of the uniform distribution in the target; 0 for none. Evaluations leave it and
    /// the z-loss out; the log of the steps shows what is trained.
    pub label_smoothing: f64,
    /// Bound of the logits, `cap · tanh(z / cap)`, in training, evaluation and sampling (30 as in
    /// Gemma 2); by default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit_softcap: Option<f64>,
    /// Rows whose logits are held at a time. It decides where gradients are cut into sums, so it
    /// is part of a run's identity.
    pub chunk_rows: usize,
}

impl Default for NextToken {
    fn default() -> Self {
        Self { z_loss: 0.0, label_smoothing: 0.0, logit_softcap: None, chunk_rows: 512 }
    }
}

impl NextToken {
    /// The sum of losses times `scale`; fetches what is summed.
    fn loss(
        &self,
        g: &mut Graph<'_>,
        model: &dyn LanguageModel,
        shape: BatchShape,
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
        let sequence_length = shape.sequence_length;
        let batch = TokenBatch { tokens, positions, segments, sequence_length, training };
        let hidden = model.hidden(g, &batch)?;
        let head = model.head(g);
        let options = LossOptions {
            chunk_rows: self.chunk_rows,
            z_loss: self.z_loss as f32,
            label_smoothing: self.label_smoothing as f32,
            softcap: self.logit_softcap.map(|cap| cap as f32),
        };
        let result = g.scoped("head", |g| {
            let Some(bytes) = bytes else {
                return linear_cross_entropy(g, hidden, head, None, labels, scale, options);
            };
            let rows = [hidden, head];
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

    fn logit_softcap(&self) -> Option<f32> {
        self.logit_softcap.map(|cap| cap as f32)
    }

    fn train(
        &self,
        g: &mut Graph<'_>,
        model: &dyn LanguageModel,
        shape: BatchShape,
    ) -> Result<Goal> {
        let loss = self.loss(g, model, shape, true)?;
        g.fetch("loss", loss);
        Ok(Goal::Train { loss })
    }

    fn evaluate(
        &self,
        g: &mut Graph<'_>,
        model: &dyn LanguageModel,
        shape: BatchShape,
    ) -> Result<Goal> {
        self.loss(g, model, shape, false)?;
        Ok(Goal::Forward)
    }
}
