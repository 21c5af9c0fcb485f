//! Distillation (Hinton et al., arXiv:1503.02531): the next token as the text has it, and as a
//! teacher would have it.
//!
//! Inputs as of `next_token`, and for training `teacher_scale f32[]`. Both losses count the tokens
//! that have a next one: the cross-entropy of the text, and `T² KL(teacher / T ‖ student / T)` of
//! the whole distributions, T the temperature. The logits of both models are held in memory. It is
//! measured as `next_token` is.

use std::sync::Arc;

use octet_actors::contract::Reading;
use octet_kernels::dtype::DType;
use octet_kernels::error::{Error, Result};
use octet_kernels::graph::{Graph, Tensor};
use octet_kernels::ops::add::add;
use octet_kernels::ops::compact::compact;
use octet_kernels::ops::cross_entropy::cross_entropy;
use octet_kernels::ops::gather_rows::gather_rows;
use octet_kernels::ops::integers::less_than;
use octet_kernels::ops::kl_divergence::kl_divergence;
use octet_kernels::ops::linear::linear;
use serde::{Deserialize, Serialize};

use super::next_token::{NextToken, SUMS, Successors};
use super::{BatchShape, Inputs, Objective, Source, Writes};
use crate::composition::{Builder, Built, HeldOutProgram, Loss, Stage};
use crate::config::error::{Invalid, require};
use crate::config::sections::expected;
use crate::data::DataError;
use crate::models::{CAUSAL, Extras, Part, Sight, TokenBatch};

#[cfg(test)]
mod tests;

/// The next token as a teacher would have it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Distillation {
    /// The teacher: one of `[model.parts]` that is not trained.
    pub teacher: String,
    /// What the logits of both are divided by. Above 0.
    pub temperature: f64,
    /// Share of the teacher in the loss; the rest is the text's. From 0 to 1.
    pub share: f64,
}

impl Default for Distillation {
    fn default() -> Self {
        Self { teacher: "teacher".to_owned(), temperature: 2.0, share: 0.5 }
    }
}

/// What a program is traced with.
#[derive(Clone)]
struct With {
    student: Arc<Part>,
    teacher: Arc<Part>,
    shape: BatchShape,
    labels: [String; 2],
}

impl Distillation {
    fn trace(&self, g: &mut Graph<'_>, with: &With, extras: &mut Extras) -> Result<Tensor> {
        let With { student, teacher, shape, labels: names } = with;
        let mut input = |name| g.input(name, &[shape.tokens()], DType::I32);
        let [tokens, labels, positions, segments] =
            ["tokens", "labels", "positions", "segments"].map(&mut input);
        let [scale, teacher_scale] =
            ["scale", "teacher_scale"].map(|name| g.input(name, &[], DType::F32));
        let batch = TokenBatch {
            tokens,
            positions,
            segments,
            types: None,
            sequence_length: shape.sequence_length,
            sight: Sight::Causal,
            training: true,
        };
        // Only rows with a target are looked at.
        let none = less_than(g, labels, 0)?;
        let some = less_than(g, none, 1)?;
        let (index, _) = compact(g, some, shape.tokens())?;
        let logits = |g: &mut Graph<'_>, part: &Part, batch: &TokenBatch, extras: &mut Extras| {
            let rows = part.hidden(g, batch, extras)?;
            let rows = gather_rows(g, rows, index)?;
            let head = part.head(g, rows)?;
            linear(g, head.rows, head.weight, head.bias)
        };
        let own = logits(g, student, &batch, extras)?;
        // A teacher does not forget anything while it is asked, nor learn.
        let asked = TokenBatch { training: false, ..batch };
        let told = logits(g, teacher, &asked, &mut Extras::default())?;
        let labels = gather_rows(g, labels, index)?;
        let text = cross_entropy(g, own, labels, scale)?;
        let (soft, soft_sum) = kl_divergence(g, own, told, self.temperature as f32, teacher_scale)?;
        for (name, sum) in names.iter().zip([text.1, soft_sum]) {
            g.fetch(&format!("{name}.loss_sum"), sum);
            g.fetch(&format!("{name}.targets"), text.2);
        }
        add(g, text.0, soft)
    }
}

impl Objective for Distillation {
    fn validate(&self) -> std::result::Result<(), Invalid> {
        let usable = self.temperature > 0.0 && (self.temperature as f32).is_finite();
        let temperature = || expected("a number above 0", self.temperature);
        require(usable, "objective.temperature", temperature)?;
        let share = || expected("a number from 0 to 1", self.share);
        require((0.0..=1.0).contains(&self.share), "objective.share", share)
    }

    fn parts(&self) -> Vec<&str> {
        vec![&self.teacher]
    }

    fn writes(&self) -> Option<Writes> {
        Some(Writes::default())
    }

    fn build(&self, track: &mut Builder<'_>) -> Result<Built> {
        let (student, teacher) = (track.model(), track.part(&self.teacher)?);
        if track.is_trained(&teacher) {
            let what = "expected a teacher that is frozen or an average";
            return Err(Error::Plan(format!("{}: {what}", teacher.shown())));
        }
        let shape = track.shape();
        let length = shape.sequence_length;
        let flops = |part: &Part| part.model().flops_per_token(length, CAUSAL);
        // A teacher only looks forward.
        let per_token = flops(&student) + flops(&teacher) / 3.0;
        let labels = ["text", "teacher"].map(|loss| track.label(loss));
        let with = With { student: student.clone(), teacher, shape, labels };
        let own = self.clone();
        let train = track.train(move |g, extras| own.trace(g, &with, extras));
        let program = track.held_out(move |g, extras| {
            NextToken::default().loss(g, &student, shape, extras, false)
        });
        let sums = SUMS.map(str::to_owned).to_vec();
        Ok(Built {
            attempts: vec![vec![Stage::Each(train)]],
            group: 1,
            losses: vec![
                Loss { scale: "scale", weight: 1.0 - self.share },
                Loss { scale: "teacher_scale", weight: self.share },
            ],
            held_out: HeldOutProgram { program, sums, reading: Reading::of_text() },
            flops_per_sample: length as f64 * per_token,
        })
    }

    fn inputs(&self, source: Source) -> std::result::Result<Box<dyn Inputs>, DataError> {
        Ok(Box::new(Successors { source, losses: 2 }))
    }
}
