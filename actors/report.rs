//! What the run tells the outside: one object per step, one per evaluation. DESIGN section 5.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// Milliseconds that a step waited, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct WaitMs {
    /// For a batch.
    pub loader: f64,
    /// For other ranks.
    pub reduce: f64,
    /// For a free snapshot slot, and for the copy into it.
    pub checkpoint: f64,
}

/// One optimizer step, as a line of `log.jsonl` with `"kind":"step"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Steps done, counting this one.
    pub step: u64,
    /// The batch that it learned from, from 0, where data was passed over; else its own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub batch: Option<u64>,
    /// Tokens (or other elements that the workload counts) so far.
    pub tokens: u64,
    /// Mean loss per target; null if it is not finite or there is no target.
    #[serde(deserialize_with = "not_finite_if_null")]
    pub loss: f64,
    /// Targets, where the programs of the step count them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub targets: Option<u64>,
    /// Mean loss per target of every named loss, where a step has more than one.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[serde(deserialize_with = "named_not_finite_if_null")]
    pub losses: Vec<(String, f64)>,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Global gradient norm before clipping.
    #[serde(deserialize_with = "not_finite_if_null")]
    pub grad_norm: f64,
    /// The update was skipped: a non-finite norm, or an overflow.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub skipped: bool,
    /// Tokens per second of this step.
    pub tokens_per_s: f64,
    /// Wall time of this step.
    pub step_ms: f64,
    /// Model FLOP/s, all ranks.
    pub flops_per_s: f64,
    /// Share of the known peak; null without one.
    pub mfu: Option<f64>,
    /// Where it waited.
    pub wait_ms: WaitMs,
    /// The order-free fingerprint of the updated parameters: the wrapping sum of [`Self::buckets`].
    #[serde(deserialize_with = "combined")]
    pub fingerprint: u64,
    /// By bucket: its fingerprint. Not in the log: telemetry records some in a file beside it.
    #[serde(skip)]
    pub buckets: Vec<u64>,
}

/// What a run has counted over its whole life, what was done again included. It never gets less.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Tokens (or other elements that the workload counts) that steps have processed.
    pub tokens: u64,
    /// Updates skipped for a non-finite norm or an overflow.
    pub skipped_updates: u64,
    /// Updates that were not finite or had a spike.
    pub bad_updates: u64,
    /// Roll-backs after bad updates.
    pub rollbacks: u64,
    /// Engines that the parent process has started again.
    pub engine_restarts: u64,
    /// Restarts inside an engine, by actor.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub actor_restarts: BTreeMap<String, u64>,
}

impl Counts {
    /// Takes over what is more there.
    pub fn raise_to(&mut self, other: &Self) {
        let raise = |own: &mut u64, other: u64| *own = (*own).max(other);
        raise(&mut self.tokens, other.tokens);
        raise(&mut self.skipped_updates, other.skipped_updates);
        raise(&mut self.bad_updates, other.bad_updates);
        raise(&mut self.rollbacks, other.rollbacks);
        raise(&mut self.engine_restarts, other.engine_restarts);
        for (actor, count) in &other.actor_restarts {
            raise(self.actor_restarts.entry(actor.clone()).or_default(), *count);
        }
    }
}

/// One evaluation, as a line of `log.jsonl` with `"kind":"evaluate"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationReport {
    /// Steps done when it ran.
    pub step: u64,
    /// Name of the task.
    pub task: String,
    /// Mean loss per target, in nats; null if it is not finite or there is no target.
    #[serde(deserialize_with = "not_finite_if_null")]
    pub loss: f64,
    /// `exp(loss)`.
    #[serde(deserialize_with = "not_finite_if_null")]
    pub perplexity: f64,
    /// Loss of the targets that are text, in bits per byte of that text; null without any.
    pub bits_per_byte: Option<f64>,
    /// Number of targets.
    pub targets: u64,
    /// What else the task measures, by name.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[serde(deserialize_with = "named_not_finite_if_null")]
    pub measures: Vec<(String, f64)>,
}

/// A roll-back after bad updates, as a line of `log.jsonl` with `"kind":"rollback"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RollBackReport {
    /// Steps done in the state that the run went back to.
    pub step: u64,
    /// Steps done when it was decided.
    pub at: u64,
    /// Steps done in the state that was loaded: those up to `step` are done again as they were.
    pub loaded: u64,
    /// Which roll-back of the run, from 1.
    pub number: u64,
    /// Why.
    pub reason: String,
    /// The first batch that is passed over.
    pub first_batch: u64,
    /// How many batches are passed over.
    pub batches: u64,
}

/// The mean of so many terms; not a number without any, for that is no perfect result.
pub(crate) fn mean(sum: f64, terms: u64) -> f64 {
    if terms == 0 { f64::NAN } else { sum / terms as f64 }
}

/// JSON has no NaN and no infinity: they are written as null, and null is read as NaN.
fn not_finite_if_null<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// Logs of earlier builds have the fingerprint of every bucket.
fn combined<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Fingerprint {
        Combined(u64),
        Buckets(Vec<u64>),
    }
    Ok(match Fingerprint::deserialize(from)? {
        Fingerprint::Combined(sum) => sum,
        Fingerprint::Buckets(buckets) => buckets.into_iter().fold(0, u64::wrapping_add),
    })
}

fn named_not_finite_if_null<'de, D>(from: D) -> Result<Vec<(String, f64)>, D::Error>
where
    D: Deserializer<'de>,
{
    let named = Vec::<(String, Option<f64>)>::deserialize(from)?;
    Ok(named.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}
