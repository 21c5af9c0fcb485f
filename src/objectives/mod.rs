//! The objectives: what a model is trained for.
//!
//! Duty: `[objective]`, and the programs of a step. A new objective is one file and one line in
//! [`ObjectiveConfig`]. Prohibition: no data and no threads; an objective only names the inputs
//! that a batch must bring and the results that a report needs.

use std::fmt::Debug;

use octet_kernels::error::Result;
use octet_kernels::graph::{Goal, Graph};

use crate::config::error::Invalid;
use crate::config::tagged::tagged;
use crate::models::LanguageModel;

pub mod next_token;

pub use next_token::NextToken;

tagged! {
    /// The kind of objective with the keys of that kind.
    ObjectiveConfig by "kind" as Objective;
    /// Every token predicts the next one of its document.
    "next_token" => NextToken(NextToken),
}

/// The sequences that one run of a program computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchShape {
    /// Sequences of a micro-batch.
    pub sequences: usize,
    /// Tokens of a sequence.
    pub sequence_length: usize,
}

impl BatchShape {
    /// Rows of the model's matrices.
    pub fn tokens(&self) -> usize {
        self.sequences * self.sequence_length
    }
}

/// What every objective can do.
pub trait Objective: Debug {
    /// Checks every key.
    ///
    /// # Errors
    /// The first key with an unusable value.
    fn validate(&self) -> std::result::Result<(), Invalid>;

    /// What bounds the logits, for whoever draws from them.
    fn logit_softcap(&self) -> Option<f32> {
        None
    }

    /// Traces a micro-batch of a step and returns the goal to compile it for.
    ///
    /// # Errors
    /// [`octet_kernels::error::Error::Shape`] when model and batch do not fit.
    fn train(
        &self,
        g: &mut Graph<'_>,
        model: &dyn LanguageModel,
        shape: BatchShape,
    ) -> Result<Goal>;

    /// Traces a micro-batch of held-out data.
    ///
    /// # Errors
    /// As [`Self::train`].
    fn evaluate(
        &self,
        g: &mut Graph<'_>,
        model: &dyn LanguageModel,
        shape: BatchShape,
    ) -> Result<Goal>;
}

impl<'de> serde::Deserialize<'de> for ObjectiveConfig {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        Self::from_table(toml::Table::deserialize(deserializer)?)
    }
}
